"""Commands that look at runs: runs, status, logs; all but a live log need the store alone."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarray.cli import output
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    RunArgument,
    StoreOption,
    open_store,
    store_words,
)

if TYPE_CHECKING:
    from cifarray.runs import Run, RunSummary, Status
    from cifarray.submit.cluster import Cluster
    from cifarray.submit.kubernetes.cluster import KubernetesCluster

FollowLogOption = Annotated[
    bool, typer.Option("-f", "--follow", help="Go on as it grows, until the run has ended.")
]
COLUMNS = ("run", "state", "job", "best", "age", "duration", "size")


def runs(
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
) -> None:
    """List the runs of a store, newest first.

    \b
    Example:  cifarray runs
              cifarray runs --store s3://bucket/cifarray --json
    """
    from cifarray.runs import summaries

    opened = open_store(store, endpoint, cluster)
    found = summaries(opened)
    if json:
        output.print_json([_summary_as_json(each) for each in found])
    elif found:
        output.print_table(COLUMNS, [_summary_as_row(each) for each in found])
    else:
        output.say(f"{opened.uri} holds no runs; begin one with `cifarray submit JOB`")


def status(
    run: RunArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
) -> None:
    """Say how a run is doing, and what to do next.

    \b
    Example:  cifarray status tune-digits-26
    """
    from cifarray.runs import Run

    found = Run.open(open_store(store, endpoint, cluster), run)
    current = found.status()
    if json:
        output.print_json({**_status_as_json(found, current), **_rest_as_json(found, current)})
        return
    for name, value in _status_lines(found, current):
        if value:
            output.print_line(f"{name:<10} {value}")


def logs(
    run: RunArgument,
    follow: FollowLogOption = False,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    quiet: QuietOption = False,
) -> None:
    """Print what a run's driver and workers wrote.

    \b
    Example:  cifarray logs tune-digits-26 -f
    """
    from cifarray.errors import ClusterError
    from cifarray.runs import Run
    from cifarray.submit.follow import ENDED, stored_log

    found = Run.open(open_store(store, endpoint, cluster), run)
    current = found.status()
    reached = _cluster_or_none(current)
    job_id = (current.cluster or {}).get("job_id")
    if reached is not None and job_id and current.state not in ENDED:
        try:
            jobs = reached.jobs(patience_s=10.0)
            shown = 0
            for text in jobs.tail(job_id) if follow else [jobs.logs(job_id)]:
                shown += len(text)
                print(output.plain(text, colours=True), end="", flush=True)
            if shown:
                return
        except ClusterError as error:
            output.warn(f"{error}; what follows is the log as the store has it")
    print(output.plain(stored_log(found), colours=True), end="")


def _cluster_or_none(current: "Status") -> "Cluster | KubernetesCluster | None":
    """Where the run executes; None where nothing leads there any more."""
    from cifarray.errors import ClusterError
    from cifarray.submit.cluster import recorded_cluster

    try:
        return recorded_cluster(current.cluster)
    except ClusterError as error:
        output.warn(str(error))
        return None


def _summary_as_row(summary: "RunSummary") -> list[object]:
    from cifarray.reporting.formats import duration
    from cifarray.submit.condition import condition
    from cifarray.submit.news import seconds_since

    current = summary.status
    spent = current.seconds()
    return [
        summary.run.id,
        condition(summary.run, current).state,
        current.job,
        _best(current),
        output.age(seconds_since(current.submitted_at)) if current.submitted_at else None,
        None if spent is None else duration(spent),
        output.size(summary.size_bytes),
    ]


def _best(current: "Status") -> str | None:
    value = (current.best or {}).get("value")
    if not isinstance(value, int | float):
        return None
    return f"{(current.best or {}).get('metric')} {value:.4f}"


def _summary_as_json(summary: "RunSummary") -> dict[str, Any]:
    described = _status_as_json(summary.run, summary.status)
    return described | {"size_bytes": summary.size_bytes}


def _status_as_json(run: "Run", current: "Status") -> dict[str, Any]:
    from cifarray.submit.condition import condition

    found = condition(run, current)
    return {
        "run_id": run.id,
        "state": found.state,
        "reason": found.reason or None,
        "job": current.job,
        "kind": current.kind,
        "best": current.best,
        "submitted_at": current.submitted_at,
        "ended_at": current.ended_at,
        "duration_s": current.seconds(),
        "error": current.error,
    }


def _rest_as_json(run: "Run", current: "Status") -> dict[str, Any]:
    return {
        "attempts": current.attempts,
        "started_at": current.started_at,
        "heartbeat_at": current.heartbeat_at,
        "progress": current.progress,
        "cluster": current.cluster,
        "store": run.store.uri,
        "has_report": current.state == "finished" and run.has_report(),
    }


def _status_lines(run: "Run", current: "Status") -> list[tuple[str, object]]:
    from cifarray.reporting.formats import duration
    from cifarray.submit.condition import condition
    from cifarray.submit.news import failures_line, progress_line

    found, spent = condition(run, current), current.seconds()
    state = found.state
    cluster = current.cluster or {}
    return [
        ("run", run.id),
        ("state", state),
        ("reason", found.reason),
        ("job", f"{current.job} ({current.kind})"),
        ("attempts", current.attempts),
        ("progress", progress_line(current) if current.progress else None),
        ("failures", failures_line(current.progress or {})),
        ("best", _best(current)),
        ("submitted", current.submitted_at),
        ("duration", None if spent is None else duration(spent)),
        ("error", current.error),
        ("cluster", cluster.get("profile")),
        ("dashboard", cluster.get("dashboard") if state in ("running", "pending") else None),
        ("store", run.store.uri),
        ("next", _next_step(run, state)),
    ]


def _next_step(run: "Run", state: str) -> str:
    words = run.id + store_words(run.store)
    steps = {
        "finished": f"cifarray report {words}",
        "pending": f"cifarray logs -f {words}",
        "running": f"cifarray logs -f {words}",
    }
    return steps.get(state, f"cifarray resume {words}")
