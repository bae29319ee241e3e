"""Commands that end a run or go on with it: stop, resume."""

import time
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
    open_store,
)
from cifarray.errors import ClusterError, InputError

if TYPE_CHECKING:
    from cifarray.runs import Run, Status
    from cifarray.submit.jobs_api import RayJobs
    from cifarray.submit.kubernetes.cluster import RayJobRuns

STOP_TIMEOUT_S = 120.0
POLL_S = 0.5

FollowOption = Annotated[
    bool, typer.Option("--follow/--detach", help="Show its progress, or leave it to itself.")
]


def stop(
    run: RunArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop a run, and wait until it has closed.

    What it reached stays; `cifarray resume` goes on with it.

    \b
    Example:  cifarray stop tune-digits-26
    """
    from cifarray.runs import Run
    from cifarray.submit.follow import ENDED

    found = Run.open(open_store(store, endpoint, cluster), run)
    current = found.status()
    if current.state in ENDED:
        raise InputError(f"run {found.id} has ended already ({current.state}): nothing to stop")
    current = _stop(found, current)
    if json:
        output.print_json({"run_id": found.id, "state": current.state})
    else:
        output.print_line(f"run {found.id} {_end_word(current.state)}")


def resume(
    run: RunArgument,
    follow: FollowOption = True,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Go on with a run that did not finish.

    It begins at its last good checkpoint, on the cluster profile that it was submitted with;
    --cluster only tells the store.

    \b
    Example:  cifarray resume train-cifar100-26
    """
    from cifarray.cli.following import follow_runs, say_where
    from cifarray.runs import Run
    from cifarray.submit.cluster import reach
    from cifarray.submit.launch import give_up, launch

    found = Run.open(open_store(store, endpoint, cluster), run)
    _refuse_if_alive(found)
    profile = found.spec().profile
    try:
        reached = reach(profile, output.say)
        launch(found, profile, reached)
    except BaseException as error:
        give_up([found], error)
        raise
    say_where(found, reached)
    if follow:
        follow_runs([found], json)
    elif json:
        output.print_json({"run_id": found.id, "dashboard": reached.dashboard})
    else:
        output.print_line(found.id)


def _stop(run: "Run", current: "Status") -> "Status":
    """Ask the run's job to end and wait for it; close the run if nobody else can."""
    from cifarray.submit.cluster import recorded_cluster
    from cifarray.submit.follow import lost
    from cifarray.submit.kubernetes.cluster import KubernetesCluster

    cluster = recorded_cluster(current.cluster)
    job_id = (current.cluster or {}).get("job_id")
    if cluster is None or not job_id:  # its node is gone, or a driver that watches its lease
        run.mark_stopped("stopped by `cifarray stop`")
        return run.status()
    jobs = cluster.jobs(patience_s=10.0)
    if isinstance(cluster, KubernetesCluster):
        return _stop_on_kubernetes(run, jobs, job_id)
    try:
        jobs.stop(job_id)
    except ClusterError:
        if not (cluster.is_gone() or lost(current)):
            raise
        run.mark_stopped("stopped by `cifarray stop`; its node does not answer")
        return run.status()
    output.say(f"waiting for {run.id} to close ...")
    return _wait_for_end(run, job_id)


def _stop_on_kubernetes(run: "Run", jobs: "RayJobs | RayJobRuns", job_id: str) -> "Status":
    """Write the end first: Ray leaves a driver whose pod ends no time for it."""
    run.mark_stopped("stopped by `cifarray stop`")
    jobs.stop(job_id)
    return run.status()


def _wait_for_end(run: "Run", job_id: str) -> "Status":
    from cifarray.submit.cluster import recorded_cluster
    from cifarray.submit.follow import ENDED

    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        current = run.status()
        cluster = recorded_cluster(current.cluster)
        job = cluster.jobs(patience_s=10.0).find(job_id) if cluster else None
        if job is None or job.ended or job.status == "PENDING":  # it ends as soon as it begins
            if run.status().state not in ENDED:
                run.mark_stopped("stopped by `cifarray stop`")
            return run.status()
        time.sleep(POLL_S)
    raise ClusterError(
        f"run {run.id} was asked to stop and has not within {STOP_TIMEOUT_S:.0f} s; "
        f"see `cifarray logs {run.id}`"
    )


def _refuse_if_alive(run: "Run") -> None:
    """Raise InputError for a run that has finished or that somebody works on."""
    from cifarray.submit.cluster import is_from_here, recorded_cluster
    from cifarray.submit.follow import ENDED, lost

    current = run.status()
    if current.state == "finished":
        raise InputError(
            f"run {run.id} has finished; look at it with `cifarray report {run.id}`, "
            "or submit its job again"
        )
    if current.state in ENDED:
        return
    cluster = recorded_cluster(current.cluster)
    job_id = (current.cluster or {}).get("job_id")
    alive = lost(current) is None
    if job_id and cluster is None:  # a node of ours that has ended, or another machine's
        alive = alive and not is_from_here(current.cluster or {})
    elif job_id and cluster:
        try:
            job = cluster.jobs(patience_s=5.0).find(job_id)
            alive = job is not None and not job.ended
        except ClusterError:
            alive = lost(current) is None
    if alive:
        raise InputError(
            f"run {run.id} is {current.state}; follow it with `cifarray logs {run.id} -f`, "
            f"or end it with `cifarray stop {run.id}`"
        )


def _end_word(state: str) -> str:
    return "was stopped" if state == "stopped" else f"had {state} before it could be stopped"
