"""Commands that end or continue a run: stop, resume."""

from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli import output
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    RunArgument,
    StoreOption,
    VerboseOption,
    YesOption,
    named_cluster,
    open_store,
)
from cifarray.errors import ClusterError, InputError

if TYPE_CHECKING:
    from cifarray.backends.base import Unrecorded
    from cifarray.runs import Run, Status
    from cifarray.spec.profile import Profile

FollowOption = Annotated[
    bool, typer.Option("--follow/--detach", help="Follow the run, or return at once.")
]


def stop(
    run: RunArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop a run and wait until it has ended.

    Its results stay; `cifarray resume` continues it.

    \b
    Example:  cifarray stop tune-digits-26
    """
    from cifarray.errors import RunNotFoundError
    from cifarray.runs import ENDED, Run

    named = named_cluster(cluster)
    try:
        found = Run.open(open_store(store, endpoint, cluster), run)
    except RunNotFoundError:
        if (waiting := find_unrecorded(run, named)) is None:
            raise
        waiting.stop()
        _say_stopped(run, "stopped", "was stopped before its driver started", json)
        return
    current = found.status()
    if current.state in ENDED:
        job_id = _stop_leftover(found, current, named)
        state = "been stopped" if current.state == "stopped" else current.state
        ended = f"had {state} already; its job {job_id} was still running and is now ended"
        _say_stopped(found.id, current.state, ended, json)
        return
    current = _stop(found, current, named)
    late = f"had {current.state} before it could be stopped"
    words = "was stopped" if current.state == "stopped" else late
    _say_stopped(found.id, current.state, words, json)


def resume(
    run: RunArgument,
    follow: FollowOption = True,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    yes: YesOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Continue a run that did not finish.

    It starts from its last complete checkpoint, on the cluster profile with which it was submitted.
    For a run that was submitted from another machine, name its profile with --cluster; before the
    run's code is executed you are asked.

    \b Example: cifarray resume train-cifar100-26
    """
    from cifarray.backends.choice import backend_of
    from cifarray.backends.submit import give_up, launch
    from cifarray.backends.trust import resumed_profile
    from cifarray.cli.following import follow_runs, say_where
    from cifarray.runs import Run

    found = Run.open(open_store(store, endpoint, cluster), run)
    named = named_cluster(cluster)
    _refuse_if_live(found, named)
    profile = resumed_profile(found, named, store, endpoint)
    if not _agreed_to_code(found, yes):
        return
    found.store.check_writes()
    try:
        reached = backend_of(profile)
        reached.start(output)
        launch(found, reached)
    except BaseException as error:
        give_up([found], error, profile)
        raise
    say_where(found, reached)
    if follow:
        follow_runs([found], json, profile)
    elif json:
        output.print_json({"run_id": found.id, "dashboard": reached.dashboard})
    else:
        output.print_line(found.id)


def find_unrecorded(run_id: str, named: "Profile | None") -> "Unrecorded | None":
    """The run of this id that waits on the cluster that the command names, and in no store."""
    from cifarray.backends.choice import backend_of
    from cifarray.runs.run import is_run_id

    if named is None or not is_run_id(run_id):
        return None
    return backend_of(named).find_unrecorded(run_id)


def _stop(run: "Run", current: "Status", named: "Profile | None") -> "Status":
    """Ask the run's job to end and wait for it; close the run if nobody else can."""
    from cifarray.backends.trust import recorded_backend

    backend = recorded_backend(run, current.cluster, named)
    job_id = (current.cluster or {}).get("job_id")
    if (
        backend is None or not job_id
    ):  # its node is gone; a remaining driver ends when it finds its lease gone
        run.mark_stopped("stopped by `cifarray stop`")
        return run.status()
    return backend.stop(run, job_id, output)


def _stop_leftover(run: "Run", current: "Status", named: "Profile | None") -> str:
    """End the job of a run that has ended, as after a `stop` that did not get so far; its id.

    Raises: InputError if it has ended too, ClusterError if that cannot be asked.
    """
    from cifarray.backends.choice import recorded_class
    from cifarray.backends.trust import recorded_backend

    ended, record = f"run {run.id} has ended already ({current.state})", current.cluster or {}
    job_id = record.get("job_id")
    if not job_id or not recorded_class(record).outlives_its_run:
        raise InputError(f"{ended}: nothing to stop")
    try:
        backend = recorded_backend(run, record, named)
        is_stopped = backend is not None and backend.end_leftover(run, job_id)
    except ClusterError as error:
        raise ClusterError(f"{ended}, but whether its job has ended is unknown: {error}") from error
    if not is_stopped:
        raise InputError(f"{ended}: nothing to stop")
    return str(job_id)


def _refuse_if_live(run: "Run", named: "Profile | None") -> None:
    """Raise InputError for a run that has finished or may still be running."""
    from cifarray.backends.observe import EvidenceCollector
    from cifarray.runs import examine

    if run.status().state == "finished":
        raise InputError(
            f"run {run.id} has finished; look at it with `cifarray report {run.id}`, "
            "or submit its job again"
        )
    (found,) = examine([run], EvidenceCollector(named).evidence, output.say)
    if not found.is_over:
        known = found.evidence.alive or found.evidence.doubt
        raise InputError(
            f"run {run.id} is {found.status.state}{f' ({known})' if known else ''}; follow it "
            f"with `cifarray logs {run.id} -f`, or stop it with `cifarray stop {run.id}`"
        )


def _agreed_to_code(run: "Run", yes: bool) -> bool:
    """Say what code a run brings; if it was not submitted from here, ask first.

    Raises: InputError if nobody can be asked.
    """
    from cifarray.backends.trust import code_of, submitted_spec

    brought = code_of(run.spec())
    if not brought:
        return True
    told = f"run {run.id} executes {' and '.join(brought)}"
    if yes or submitted_spec(run) is not None:
        output.say(told)
        return True
    if not output.can_ask():
        raise InputError(
            f"{told}, and was not submitted from here; inspect {run.prefix} in {run.store.uri}, "
            "then add --yes to execute it"
        )
    if output.ask(f"{told}, and was not submitted from here: continue?"):
        return True
    output.say("nothing was started")
    return False


def _say_stopped(run_id: str, state: str, words: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"run_id": run_id, "state": state})
    else:
        output.print_line(f"run {run_id} {words}")
