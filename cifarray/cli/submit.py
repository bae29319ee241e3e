"""Commands that begin a run: submit on a cluster, run in this process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli import output
from cifarray.cli.job_options import (
    ArchiveOption,
    BestOfOption,
    CodeOption,
    DryRunOption,
    JobArgument,
    NameOption,
    PrepareOption,
    SeedsOption,
    SetOption,
    WorkersOption,
)
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    StoreOption,
    VerboseOption,
)
from cifarray.cli.planning import Wish, record, resolve, show_plan
from cifarray.errors import InputError

if TYPE_CHECKING:
    from cifarray.cli.planning import Planned
    from cifarray.runs import Run

FollowOption = Annotated[
    bool, typer.Option("--follow/--detach", help="Show its progress, or leave it to itself.")
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
    """Train or tune JOB on a cluster, and follow it.

    On this machine a Ray node starts by itself. Ctrl-C leaves the run alone; `cifarray stop`
    ends it.

    \b
    Example:  cifarray submit tune-digits --prepare
              cifarray submit train-cifar100 --set train.epochs=5 --seeds 3 --detach
              cifarray submit train-digits --best-of tune-digits-261123
    """
    planned = resolve(
        Wish(
            job, tuple(sets or ()), cluster, store, endpoint, name, prepare, archive, code,
            best_of, seeds, workers,
        ),
        dry_run,
    )  # fmt: skip
    if dry_run:
        show_plan(planned, json)
        return
    runs = record(planned)
    _submit(planned, runs, follow, json)


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
    """Train or tune JOB with its driver in this process.

    No job server takes part and the log is on the screen; workers run on the same node as with
    `submit` and give the same numbers. Ctrl-C stops the run.

    \b
    Example:  cifarray run train-digits --set train.epochs=2
    """
    planned = resolve(
        Wish(
            job, tuple(sets or ()), cluster, store, endpoint, name, prepare, archive, code,
            best_of, seeds, workers,
        )
    )  # fmt: skip
    _refuse_kubernetes(planned)
    if dry_run:
        show_plan(planned, json)
        return
    _run_here(planned, record(planned), json)


def _submit(planned: "Planned", runs: "list[Run]", follow: bool, as_json: bool) -> None:
    from cifarray.backends.choice import reach
    from cifarray.backends.submit import give_up, launch
    from cifarray.cli.following import follow_runs, say_where

    waiting = list(runs)
    try:
        cluster = reach(planned.profile, output.say)
        for run in runs:
            job_id = launch(run, planned.profile, cluster)
            waiting.remove(run)
            say_where(run, cluster)
            output.detail(f"its job is {job_id}")
    except BaseException as error:
        give_up(waiting, error)
        raise
    if follow:
        follow_runs(runs, as_json, planned.profile)
    elif as_json:
        described = [
            {"run_id": run.id, "store": run.store.uri, "dashboard": cluster.dashboard}
            for run in runs
        ]
        output.print_json(described if len(runs) > 1 else described[0])
    else:
        for run in runs:
            output.print_line(run.id)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Whatever the driver and its children print is remarks; standard output is for data."""
    sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(data, 1)
        os.close(data)


def _refuse_kubernetes(planned: "Planned") -> None:
    if planned.profile.kind == "kubernetes":
        raise InputError(
            f"`run` trains in this process, and {planned.profile.name} is a Kubernetes cluster; "
            "use `cifarray submit`"
        )


def _run_here(planned: "Planned", runs: "list[Run]", as_json: bool) -> None:
    from cifarray.backends.choice import Cluster, reach
    from cifarray.backends.submit import enter, give_up
    from cifarray.cli.following import end_with, ended, say_where

    waiting = list(runs)
    try:
        cluster = reach(planned.profile, output.say)
        assert isinstance(cluster, Cluster)
        for run in runs:
            enter(run, planned.profile, cluster)
            from cifarray.driver.execute import execute  # Ray reads what `enter` set on import

            say_where(run, cluster)
            waiting.remove(run)
            with _log_on_stderr():
                execute(run)
            if run.status().state == "stopped":  # Ctrl-C means all of them
                raise KeyboardInterrupt
    except BaseException as error:
        give_up(waiting, error)
        raise
    end_with([ended(run, run.status()) for run in runs], as_json)
