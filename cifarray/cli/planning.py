"""From the options of `submit` and `run` to recorded runs: checked, data prepared, written."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifarray.cli import output
from cifarray.errors import DatasetError, InputError

if TYPE_CHECKING:
    from cifarray.backends.submit import Plan
    from cifarray.data.manifest import Manifest
    from cifarray.runs import Run
    from cifarray.spec.profile import Profile
    from cifarray.store import Store


@dataclass(frozen=True)
class Wish:
    """What was typed after `submit` or `run`."""

    job: str
    sets: tuple[str, ...] = ()
    cluster: str = "local"
    store: str | None = None
    endpoint: str | None = None
    name: str | None = None
    prepare: bool = False
    archive: str | None = None
    code: Path | None = None
    best_of: str | None = None
    seeds: int = 1
    workers: int | None = None


@dataclass(frozen=True)
class Planned:
    """A checked job, where it is to run, and the store that it is to use."""

    plan: "Plan"
    store: "Store | None"
    """None in a dry run whose cluster is out of reach."""
    wish: Wish

    @property
    def profile(self) -> "Profile":
        """The cluster profile."""
        return self.plan.profile

    @property
    def plans(self) -> "list[Plan]":
        """One plan per seed."""
        first = self.plan.job.seed
        return [self.plan.with_seed(first + number) for number in range(self.wish.seeds)]


def resolve(wish: Wish, dry_run: bool = False) -> Planned:
    """Check everything that job and profile can tell; starts nothing.

    Raises: JobError, and RunNotFoundError or StoreError for `--best-of`.
    """
    from cifarray.backends.checks import remarks
    from cifarray.backends.choice import given_cluster
    from cifarray.backends.submit import plan
    from cifarray.runs import Run
    from cifarray.runs.ids import is_run_id
    from cifarray.spec.load import load_job, load_profile

    for name in _names(wish):
        if name is not None and not is_run_id(name):
            raise InputError(
                f"cannot name a run {name!r}; an id has lower-case letters, digits and '-', begins "
                "with a letter and has at most 63 characters"
            )
    job = load_job(wish.job, wish.sets)
    profile = load_profile(wish.cluster)
    if profile.kind == "local":
        given_cluster(profile)
    store = _store(wish, profile, dry_run)
    if profile.kind == "kubernetes":  # pods reach it by the profile's endpoint, not by ours
        typed = {"uri": wish.store, "endpoint": wish.endpoint}
        changes = {name: value for name, value in typed.items() if value}
        inside = profile.store.model_copy(update=changes)
        profile = profile.model_copy(update={"store": inside})
    best_of = Run.open(store, wish.best_of) if wish.best_of and store else None
    if wish.code is not None:
        _refuse_no_folder(wish.code)
    planned = plan(
        job,
        profile,
        workers=wish.workers,
        code=wish.code,
        best_of=best_of,
        sets=wish.sets,
        store=store,
    )
    for remark in remarks(planned.job):
        output.say(remark)
    return Planned(planned, store, wish)


def _refuse_no_folder(code: Path) -> None:
    try:
        found = code.is_dir()
    except OSError as error:
        raise InputError(
            f"--code {code} cannot be read: {error.strerror}; give another folder"
        ) from error
    if not found:
        raise InputError(f"--code {code} is no folder; give one that holds your network")


def _store(wish: Wish, profile: "Profile", dry_run: bool) -> "Store | None":
    """The store; None where a dry run for Kubernetes finds no way to it and needs none."""
    from cifarray.cli.options import open_store
    from cifarray.errors import ClusterError, StoreError

    try:
        return open_store(wish.store, wish.endpoint, wish.cluster)
    except (ClusterError, StoreError) as error:
        if not dry_run or profile.kind != "kubernetes" or wish.best_of:
            raise
        output.say(f"not checked against its rows: {error}")
        return None


def show_plan(planned: Planned, as_json: bool) -> None:
    """Print what would run; a dataset that is there already is held against it.

    Raises: JobError, StoreError.
    """
    from cifarray.backends.submit import check_beginning, check_data
    from cifarray.spec.load import to_yaml

    plan = planned.plan
    try:
        if planned.store is not None:
            _refuse_taken(planned)
            manifest = _manifest(planned)
            selection = check_data(plan, planned.store, manifest)
            check_beginning(plan, planned.store, manifest, selection)
    except DatasetError as error:
        output.say(f"not checked against its rows: {error}")
    if plan.profile.kind == "kubernetes" and _is_rayjob(plan.profile):
        _show_rayjobs(planned, as_json)
        return
    if as_json:
        jobs = [each.job.model_dump(mode="json") for each in planned.plans]
        print_json = output.print_json
        print_json(jobs if planned.wish.seeds > 1 else jobs[0])
        return
    many = f"{planned.wish.seeds} runs, " if planned.wish.seeds > 1 else ""
    store = planned.store.uri if planned.store else plan.profile.store.uri
    where = f"{plan.world_size} workers on {plan.profile.name}, store {store}"
    output.print_line(f"# {many}{where}")
    for number, each in enumerate(planned.plans):
        if number:
            output.print_line("---")
        output.print_text(to_yaml(each.job))


def _is_rayjob(profile: "Profile") -> bool:
    return profile.kubernetes is not None and profile.kubernetes.mode == "rayjob"


def _show_rayjobs(planned: Planned, as_json: bool) -> None:
    """Print what `kubectl apply -f -` would take: each run's RayJob, and the policy of its pods.

    Raises: InputError for what does not fit into a manifest.
    """
    from cifarray.backends.kubernetes.rayjob import run_objects
    from cifarray.backends.pretrained import lies_here
    from cifarray.backends.submit import request
    from cifarray.spec.load import dump_yaml

    if lies_here(weights := planned.plan.job.model.weights):
        raise InputError(
            f"model.weights {weights} is a path of this machine and does not fit into a RayJob; "
            "submit without --dry-run, or give s3://bucket/file or run:ID"
        )
    if planned.plan.code is not None:
        raise InputError(
            "--code does not fit into a RayJob; submit without --dry-run, or build the network "
            "into the image"
        )
    try:
        manifest = _manifest(planned) if planned.store is not None else None
    except DatasetError:
        manifest = None
    asked = [
        request(plan, manifest, name)
        for plan, name in zip(planned.plans, _names(planned.wish), strict=True)
    ]
    objects = [made for each in asked for made in run_objects(each, 1)]
    if as_json:
        output.print_json(objects)
    else:
        print(dump_yaml(*objects), end="")


def record(planned: Planned) -> "list[Run]":
    """Make sure of the dataset and write the runs, one per seed.

    Raises: DatasetError if the dataset is missing and nobody says to prepare it; InputError if a
    name is taken.
    """
    from cifarray.backends.submit import create, give_up

    store = _reached(planned)
    store.check_writes()
    _refuse_taken(planned)
    manifest = _prepared(planned)
    runs: list[Run] = []
    try:
        for plan, name in zip(planned.plans, _names(planned.wish), strict=True):
            runs.append(create(plan, store, manifest, name))
    except BaseException as error:
        give_up(runs, error)
        raise
    _tell_of_weights(runs[0])
    return runs


def _tell_of_weights(run: "Run") -> None:
    """Say which of the network's weights none were found for."""
    weights = run.spec().weights
    if weights is not None and weights.fresh:
        output.say(f"its head begins with random weights: {', '.join(weights.fresh)}")


def _refuse_taken(planned: Planned) -> None:
    from cifarray.runs import Run
    from cifarray.store.layout import SPEC_FILE

    store = _reached(planned)
    for name in _names(planned.wish):
        if name is not None and store.exists(Run(store, name).key(SPEC_FILE)):
            raise InputError(f"run {name} is in {store.uri} already; give another --name")


def _reached(planned: Planned) -> "Store":
    assert planned.store is not None, "only a dry run does without"
    return planned.store


def _names(wish: Wish) -> list[str | None]:
    if wish.name is None or wish.seeds == 1:
        return [wish.name] * wish.seeds
    return [f"{wish.name}-{number}" for number in range(1, wish.seeds + 1)]


def _manifest(planned: Planned) -> "Manifest":
    from cifarray.data.manifest import load_manifest

    return load_manifest(_reached(planned), planned.plan.job.dataset.name)


def _prepared(planned: Planned) -> "Manifest":
    """The dataset's manifest; prepares it if that is wanted."""
    from cifarray.cli.data_progress import shown_progress
    from cifarray.data.ingest import prepare
    from cifarray.data.manifest import latest_digest

    name, wish = planned.plan.job.dataset.name, planned.wish
    if wish.archive is None and latest_digest(_reached(planned), name) is not None:
        return _manifest(planned)
    if wish.archive is None and not wish.prepare and not _agrees_to_prepare(planned):
        raise DatasetError(
            f"dataset {name} is not in {_reached(planned).uri}; say --prepare to prepare it first, "
            f"or run `cifarray data prepare {name}`"
        )
    with shown_progress() as progress:
        manifest, _ = prepare(_reached(planned), name, wish.archive, progress)
    return manifest


def _agrees_to_prepare(planned: Planned) -> bool:
    if not output.can_ask():
        return False
    from cifarray.data.catalog import DATASETS

    entry = DATASETS[planned.plan.job.dataset.name]
    size = sum(file.size_bytes for file in entry.archives)
    fetched = f" ({output.size(size)} to download)" if size else ""
    question = f"dataset {entry.name} is not in {_reached(planned).uri}: prepare it now{fetched}?"
    return output.ask(question, default=True)
