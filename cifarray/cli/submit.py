"""Commands that start a run: submit on a cluster, run in this process."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli import output
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    StoreOption,
    VerboseOption,
    open_store,
)
from cifarray.errors import DatasetError, InputError
from cifarray.spec.quantity import written_bytes

if TYPE_CHECKING:
    from cifarray.backends.submit import Submission
    from cifarray.data.manifest import Manifest
    from cifarray.runs import Run
    from cifarray.store import Store

MOST_SEEDS = 1000

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job's name (`cifarray jobs` lists them), or a path to a YAML file."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set a field of the job, as in train.epochs=3; repeatable.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="The run's id  [default: job, date, time]", show_default=False),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check and print the resolved job, and start nothing.")
]
PrepareOption = Annotated[
    bool, typer.Option("--prepare", help="Prepare the dataset first if it is not in the store.")
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="PATH|URL",
        help="Prepare the dataset from this archive (implies --prepare).",
        show_default=False,
    ),
]
CodeOption = Annotated[
    Path | None,
    typer.Option(
        "--code",
        metavar="DIR",
        help="Folder with the code of your own network; it is copied into the run.",
        show_default=False,
    ),
]
BestOfOption = Annotated[
    str | None,
    typer.Option(
        "--best-of",
        metavar="RUN",
        help="Use the fields of this sweep's best trial.",
        show_default=False,
    ),
]
SeedsOption = Annotated[
    int,
    typer.Option(
        "--seeds",
        metavar="N",
        min=1,
        max=MOST_SEEDS,
        help="Start this many runs, each with the next seed.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Number of workers  [default: the profile's]",
        show_default=False,
    ),
]
FollowOption = Annotated[
    bool, typer.Option("--follow/--detach", help="Follow the run, or return at once.")
]


def submit(
    job: JobArgument,
    cluster: ClusterOption = "local",
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    sets: SetOption = None,
    name: NameOption = None,
    follow: FollowOption = True,
    dry_run: DryRunOption = False,
    prepare: PrepareOption = False,
    archive: ArchiveOption = None,
    code: CodeOption = None,
    best_of: BestOfOption = None,
    seeds: SeedsOption = 1,
    workers: WorkersOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train or tune JOB on a cluster, and follow the run.

    On this machine a Ray node is started if none runs. Ctrl-C only stops following; `cifarray stop`
    ends the run.

    \b
    Example:  cifarray submit tune-digits --prepare
              cifarray submit train-cifar100 --set train.epochs=5 --seeds 3 --detach
              cifarray submit train-digits --best-of tune-digits-261123
    """
    submissions, opened = resolve(
        job, sets or (), cluster, store, endpoint, name, code, best_of, seeds, workers, dry_run
    )
    if dry_run:
        show(submissions, opened, json)
        return
    _submit(record(submissions, opened, prepare, archive), submissions[0], follow, json)


def run(
    job: JobArgument,
    cluster: ClusterOption = "local",
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    sets: SetOption = None,
    name: NameOption = None,
    dry_run: DryRunOption = False,
    prepare: PrepareOption = False,
    archive: ArchiveOption = None,
    code: CodeOption = None,
    best_of: BestOfOption = None,
    seeds: SeedsOption = 1,
    workers: WorkersOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train or tune JOB with the driver in this process.

    The log is printed here, and no job server is involved; workers run on the same node as with
    `submit` and give the same numbers. Ctrl-C stops the run.

    \b Example: cifarray run train-digits --set train.epochs=2
    """
    from cifarray.backends.choice import backend_of

    submissions, opened = resolve(
        job, sets or (), cluster, store, endpoint, name, code, best_of, seeds, workers
    )
    backend_of(submissions[0].profile).refuse_entry()
    if dry_run:
        show(submissions, opened, json)
        return
    _run_here(record(submissions, opened, prepare, archive), submissions[0], json)


def resolve(
    job: str,
    sets: Sequence[str] = (),
    cluster: str = "local",
    store: str | None = None,
    endpoint: str | None = None,
    name: str | None = None,
    code: Path | None = None,
    best_of: str | None = None,
    seeds: int = 1,
    workers: int | None = None,
    dry_run: bool = False,
) -> "tuple[list[Submission], Store | None]":
    """Make the checked submissions, one per seed; nothing is started.

    In a dry run whose cluster cannot be reached there is no store.
    Raises: JobError, and RunNotFoundError or StoreError for `--best-of`.
    """
    from cifarray.backends.checks import remarks
    from cifarray.backends.choice import backend_of
    from cifarray.backends.submit import plan, run_names
    from cifarray.errors import ClusterError, StoreError
    from cifarray.runs import Run
    from cifarray.runs.run import is_run_id
    from cifarray.spec.load import load_job, load_profile

    for each in run_names(name, seeds):
        if each is not None and not is_run_id(each):
            raise InputError(
                f"cannot name a run {each!r}; an id has lower-case letters, digits and '-', begins "
                "with a letter and has at most 63 characters"
            )
    checked = load_job(job, sets)
    backend = backend_of(load_profile(cluster))
    opened = None
    try:
        opened = open_store(store, endpoint, cluster)
    except (ClusterError, StoreError) as error:
        if not dry_run or not backend.profile.store_is_inside or best_of:
            raise
        output.say(f"not checked against its rows: {error}")
    if code is not None:
        _refuse_no_folder(code)
    submission = plan(
        checked,
        backend.with_store(store, endpoint),
        workers=workers,
        code=code,
        best_of=Run.open(opened, best_of) if best_of and opened else None,
        sets=sets,
        store=opened,
        name=name,
    )
    for remark in remarks(submission.job):
        output.say(remark)
    return submission.seeds(seeds), opened


def _refuse_no_folder(code: Path) -> None:
    try:
        found = code.is_dir()
    except OSError as error:
        raise InputError(
            f"--code {code} cannot be read: {error.strerror}; give another folder"
        ) from error
    if not found:
        raise InputError(f"--code {code} is not a folder; give the folder with your network's code")


def show(submissions: "Sequence[Submission]", store: "Store | None", as_json: bool) -> None:
    """Print what would run; a dataset that is there already is checked against it.

    On Kubernetes that is what `kubectl apply -f -` takes, where a run is objects.
    Raises: JobError, StoreError, InputError for what does not fit into a manifest.
    """
    from cifarray.backends.choice import backend_of
    from cifarray.backends.submit import check_data, check_weights, request
    from cifarray.spec.load import dump_yaml, to_yaml

    first, manifest = submissions[0], None
    if store is not None:
        _refuse_taken(submissions, store)
        try:
            manifest = _manifest(first, store)
            check_weights(first, store, manifest, check_data(first, store, manifest))
        except DatasetError as error:
            output.say(f"not checked against its rows: {error}")
    backend = backend_of(first.profile)
    if backend.makes_objects:
        _refuse_what_stays_here(first)
        asked = [request(each, manifest) for each in submissions]
        objects = [made for each in asked for made in backend.objects(each)]
        if as_json:
            output.print_json(objects)
        else:
            print(dump_yaml(*objects), end="")
        return
    if as_json:
        jobs = [each.job.model_dump(mode="json") for each in submissions]
        output.print_json(jobs if len(jobs) > 1 else jobs[0])
        return
    many = f"{len(submissions)} runs, " if len(submissions) > 1 else ""
    uri = store.uri if store else first.profile.store.uri
    output.print_line(f"# {many}{first.world_size} workers on {first.profile.name}, store {uri}")
    for number, each in enumerate(submissions):
        if number:
            output.print_line("---")
        output.print_text(to_yaml(each.job))


def _refuse_what_stays_here(submission: "Submission") -> None:
    from cifarray.backends.pretrained import is_local_path

    if is_local_path(weights := submission.job.model.weights):
        raise InputError(
            f"model.weights {weights} is a path on this machine, which a RayJob cannot contain; "
            "submit without --dry-run, or give s3://bucket/file or run:ID"
        )
    if submission.code is not None:
        raise InputError(
            "a RayJob cannot contain the folder of --code; submit without --dry-run, or build "
            "the network into the image"
        )


def record(
    submissions: "Sequence[Submission]",
    store: "Store | None",
    prepare: bool = False,
    archive: str | None = None,
) -> "list[Run]":
    """Make sure of the dataset and write the runs, one per submission.

    Raises: DatasetError if the dataset is missing and must not be prepared; InputError if a
    name is taken.
    """
    from cifarray.backends.submit import create, give_up

    assert store is not None, "only a dry run does without"
    store.check_writes()
    _refuse_taken(submissions, store)
    manifest = _prepared(submissions[0], store, prepare, archive)
    runs: list[Run] = []
    try:
        for each in submissions:
            runs.append(create(each, store, manifest))
    except BaseException as error:
        give_up(runs, error)
        raise
    weights = runs[0].spec().weights
    if weights is not None and weights.fresh:
        output.say(f"these layers start with random weights:  {', '.join(weights.fresh)}")
    return runs


def _refuse_taken(submissions: "Sequence[Submission]", store: "Store") -> None:
    from cifarray.runs import Run
    from cifarray.store.layout import SPEC_FILE

    for name in (each.name for each in submissions):
        if name is not None and store.exists(Run(store, name).key(SPEC_FILE)):
            raise InputError(f"run {name} already exists in {store.uri}; give another --name")


def _manifest(submission: "Submission", store: "Store") -> "Manifest":
    from cifarray.data.manifest import load_manifest

    return load_manifest(store, submission.job.dataset.name)


def _prepared(
    submission: "Submission", store: "Store", prepare: bool, archive: str | None
) -> "Manifest":
    """The dataset's manifest; prepares it if that is asked for."""
    from cifarray.cli.data import shown_progress
    from cifarray.data import ingest
    from cifarray.data.manifest import latest_digest

    name = submission.job.dataset.name
    if archive is None and latest_digest(store, name) is not None:
        return _manifest(submission, store)
    if archive is None and not prepare and not _agrees_to_prepare(name, store):
        raise DatasetError(
            f"dataset {name} is not in {store.uri}; add --prepare to prepare it first, or run "
            f"`cifarray data prepare {name}`"
        )
    with shown_progress() as progress:
        manifest, _ = ingest.prepare(store, name, archive, progress)
    return manifest


def _agrees_to_prepare(name: str, store: "Store") -> bool:
    if not output.can_ask():
        return False
    from cifarray.data.catalog import DATASETS

    size = sum(file.size_bytes for file in DATASETS[name].archives)
    fetched = f" ({written_bytes(size)} to download)" if size else ""
    question = f"dataset {name} is not in {store.uri}: prepare it now{fetched}?"
    return output.ask(question, default=True)


def _submit(runs: "list[Run]", submission: "Submission", follow: bool, as_json: bool) -> None:
    from cifarray.backends.choice import backend_of
    from cifarray.backends.submit import give_up, launch
    from cifarray.cli.following import follow_runs, say_where

    waiting = list(runs)
    try:
        backend = backend_of(submission.profile)
        backend.start(output)
        for run in runs:
            job_id = launch(run, backend)
            waiting.remove(run)
            say_where(run, backend)
            output.detail(f"its job is {job_id}")
    except BaseException as error:
        give_up(waiting, error)
        raise
    if follow:
        follow_runs(runs, as_json, submission.profile)
    elif as_json:
        described = [
            {"run_id": run.id, "store": run.store.uri, "dashboard": backend.dashboard}
            for run in runs
        ]
        output.print_json(described if len(runs) > 1 else described[0])
    else:
        for run in runs:
            output.print_line(run.id)


def _run_here(runs: "list[Run]", submission: "Submission", as_json: bool) -> None:
    from cifarray.backends.choice import backend_of
    from cifarray.backends.follow import Outcome
    from cifarray.backends.submit import give_up
    from cifarray.cli.following import end_with, ended, say_where

    waiting = list(runs)
    try:
        backend = backend_of(submission.profile)
        backend.start(output)
        for run in runs:
            os.environ |= backend.enter(run)  # this process is the driver, and Ray reads it there
            from cifarray.driver.attempt import execute

            say_where(run, backend)
            waiting.remove(run)
            with _log_on_stderr():
                execute(run)
            if run.status().state == "stopped":  # Ctrl-C stops all of them
                raise KeyboardInterrupt
    except BaseException as error:
        give_up(waiting, error)
        raise
    end_with([ended(Outcome(run, run.status())) for run in runs], as_json)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Send output of the driver and its children to standard error; standard output is for data."""
    sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(data, 1)
        os.close(data)
