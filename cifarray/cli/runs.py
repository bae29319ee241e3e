"""Commands that show runs: runs, status, logs; all but a live log read only the store."""

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
    named_cluster,
    open_store,
    store_words,
)
from cifarray.spec.quantity import written_bytes

if TYPE_CHECKING:
    from cifarray.backends.base import Backend, Unrecorded
    from cifarray.backends.observe import ObservedState
    from cifarray.runs import Run, RunSummary, Status
    from cifarray.spec.profile import Profile

FollowLogOption = Annotated[
    bool, typer.Option("-f", "--follow", help="Print new lines until the run has ended.")
]
WhyOption = Annotated[
    bool,
    typer.Option("--why", help="Explain why the run failed, from the store alone."),
]
SHOWN_ERROR = 90
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
    from cifarray.backends.observe import observe_all
    from cifarray.runs import summaries

    opened = open_store(store, endpoint, cluster)
    found = summaries(opened)
    known = list(zip(found, observe_all(found, named_cluster(cluster)), strict=True))
    if json:
        output.print_json([_summary_as_json(*each) for each in known])
    elif found:
        _print_summaries(known)
    else:
        output.say(f"{opened.uri} contains no runs; start one with `cifarray submit JOB`")


def status(
    run: RunArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    why: WhyOption = False,
    json: JsonOption = False,
) -> None:
    """Show a run's state, and what to do next.

    \b
    Example:  cifarray status tune-digits-26
              cifarray status tune-digits-26 --why
    """
    from cifarray.backends.observe import observe
    from cifarray.cli.control import find_unrecorded
    from cifarray.cli.why import show_why
    from cifarray.errors import RunNotFoundError
    from cifarray.runs import Run

    named = named_cluster(cluster)
    try:
        found = Run.open(open_store(store, endpoint, cluster), run)
    except RunNotFoundError:
        if (waiting := find_unrecorded(run, named)) is None:
            raise
        _show_unrecorded(waiting, json)
        return
    current = found.status()
    if why:
        show_why(found, current, observe(found, current, named), named, json)
        return
    if json:
        described = _status_as_json(found, current, observe(found, current, named))
        output.print_json({**described, **_rest_as_json(found, current)})
        return
    for name, value in _status_lines(found, current, named):
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
    """Print the log of a run's driver and workers.

    \b
    Example:  cifarray logs tune-digits-26 -f
    """
    from cifarray.backends.follow import stored_log
    from cifarray.cli.control import find_unrecorded
    from cifarray.errors import ClusterError, RunNotFoundError
    from cifarray.runs import ENDED, Run

    named = named_cluster(cluster)
    try:
        found = Run.open(open_store(store, endpoint, cluster), run)
    except RunNotFoundError:
        if (waiting := find_unrecorded(run, named)) is None:
            raise
        output.say(f"run {run} has no log: its driver has not started ({waiting.reason})")
        return
    current = found.status()
    reached = _cluster_or_none(found, current, named)
    job_id = (current.cluster or {}).get("job_id")
    if reached is not None and job_id and current.state not in ENDED:
        try:
            jobs = reached.jobs(patience_s=10.0)
            shown = 0
            for text in jobs.tail(job_id) if follow else [jobs.logs(job_id)]:
                shown += len(text)
                output.print_log(text)
            if shown:
                return
        except ClusterError as error:
            output.warn(f"{error}; this is the log from the store")
    output.print_log(stored_log(found))


def _show_unrecorded(waiting: "Unrecorded", as_json: bool) -> None:
    """Show what the RayJob of a run that is not in the store yet waits for."""
    described = {
        "run": waiting.run_id,
        "state": waiting.state,
        "reason": waiting.reason,
        "cluster": waiting.profile,
    }
    if as_json:
        output.print_json({"run_id": described.pop("run"), **described})
        return
    for name, value in described.items():
        output.print_line(f"{name:<10} {value}")


def _cluster_or_none(run: "Run", current: "Status", named: "Profile | None") -> "Backend | None":
    """Where the run executes; None if it cannot be reached any more."""
    from cifarray.backends.trust import recorded_backend
    from cifarray.errors import ClusterError

    try:
        return recorded_backend(run, current.cluster, named)
    except ClusterError as error:
        output.warn(str(error))
        return None


def _print_summaries(known: "list[tuple[RunSummary, ObservedState]]") -> None:
    """The table of runs; its last column says why runs failed, if any did."""
    errors = [summary.status.error or "" for summary, _ in known]
    failed = any(errors)
    rows = [
        [*_summary_as_row(*each), *([_cut(error) or None] if failed else [])]
        for each, error in zip(known, errors, strict=True)
    ]
    output.print_table((*COLUMNS, *(["error"] if failed else [])), rows)


def _cut(error: str) -> str:
    return error if len(error) <= SHOWN_ERROR else f"{error[: SHOWN_ERROR - 1]}…"


def _summary_as_row(summary: "RunSummary", found: "ObservedState") -> list[object]:
    from cifarray.backends.progress_text import seconds_since
    from cifarray.report.formats import duration

    current = summary.status
    spent = current.seconds()
    return [
        summary.run.id,
        _state_in_row(found),
        current.job,
        _best(current),
        output.age(seconds_since(current.submitted_at)) if current.submitted_at else None,
        None if spent is None else duration(spent),
        written_bytes(summary.size_bytes),
    ]


def _state_in_row(found: "ObservedState") -> str:
    from cifarray.backends.progress_text import rough_time

    if found.heartbeat_age_s is None:
        return found.state
    return f"{found.state}, no heartbeat for {rough_time(found.heartbeat_age_s)}"


def _best(current: "Status") -> str | None:
    value = (current.best or {}).get("value")
    if not isinstance(value, int | float):
        return None
    return f"{(current.best or {}).get('metric')} {value:.4f}"


def _summary_as_json(summary: "RunSummary", found: "ObservedState") -> dict[str, Any]:
    described = _status_as_json(summary.run, summary.status, found)
    return described | {"size_bytes": summary.size_bytes}


def _status_as_json(run: "Run", current: "Status", found: "ObservedState") -> dict[str, Any]:
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


def _status_lines(
    run: "Run", current: "Status", named: "Profile | None"
) -> list[tuple[str, object]]:
    from cifarray.backends.observe import observe
    from cifarray.backends.progress_text import failures_line, progress_line
    from cifarray.report.formats import duration

    found, spent = observe(run, current, named), current.seconds()
    state, words = found.state, run.id + store_words(run.store)
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
        ("why", f"cifarray status {words} --why" if state in ("failed", "lost") else None),
        ("cluster", cluster.get("profile")),
        ("dashboard", _dashboard(run, current, named) if state in ("running", "pending") else None),
        ("store", run.store.uri),
        ("next", _next_step(run, state)),
    ]


def _dashboard(run: "Run", current: "Status", named: "Profile | None") -> str | None:
    """Where to see the dashboard, or why it is not shown."""
    from cifarray.backends.trust import shown_dashboard
    from cifarray.errors import ClusterError

    try:
        return shown_dashboard(run, current.cluster or {}, named)
    except ClusterError as error:
        return f"not shown: {error}"


def _next_step(run: "Run", state: str) -> str:
    words = run.id + store_words(run.store)
    steps = {
        "finished": f"cifarray report {words}",
        "pending": f"cifarray logs -f {words}",
        "running": f"cifarray logs -f {words}",
    }
    return steps.get(state, f"cifarray resume {words}")
