"""`status RUN --why`: why a run failed or is lost, as its folder in the store tells it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cifarray.cli import output
from cifarray.cli.options import store_words
from cifarray.spec.quantity import written_bytes

if TYPE_CHECKING:
    from cifarray.backends.observe import ObservedState
    from cifarray.runs import Run, Status
    from cifarray.spec.profile import Profile

SHOWN_LINES = 20
SHOWN_LOGS = 4
KILLED = (
    "its driver ended without recording why: it left no post-mortem, and the log ends where it "
    "was last stored"
)


def show_why(
    run: "Run", status: "Status", found: "ObservedState", named: "Profile | None", as_json: bool
) -> None:
    """Print what is known about a run's end; requires no running cluster."""
    told = explain_end(run, status, found, named)
    if as_json:
        output.print_json(told)
        return
    for name, value in _lines(told):
        if value:
            output.print_line(f"{name:<10} {value}")
    for title, lines in _logs(told):
        output.print_line(f"{title}:")
        for line in lines:
            output.print_line(f"  {line}")


def explain_end(
    run: "Run", status: "Status", found: "ObservedState", named: "Profile | None"
) -> dict[str, Any]:
    """What is known of a run's end: its driver's post-mortem, or what its records say without."""
    from cifarray.runs.failures.causes import find_cause, own_sentence
    from cifarray.runs.post_mortem import (
        cause_as_dict,
        failure_records,
        last_lines,
        masked,
        read_post_mortem,
        stored_log,
    )

    words = run.id + store_words(run.store)
    log, text = stored_log(run)
    attempt = status.attempts or max(run.attempt_numbers(), default=0)
    about = {
        "run_id": run.id,
        "state": found.state,
        "reason": found.reason or None,
        "error": status.error,
        "log": f"{run.store.uri.rstrip('/')}/{log}" if log else None,
        "pods": _pods(run, status, named),
        "next": f"cifarray logs {words}" if log else f"cifarray status {words}",
    }
    if (kept := read_post_mortem(run, attempt)) is not None:
        return {**kept, **about, "complete": True}
    failures = failure_records(run.store, run.place.of_attempt(attempt).prefix)
    ended = found.state in ("failed", "lost")
    last = str(failures[-1].get("cause") or "") if failures else ""
    cause = own_sentence(status.error) if status.error else None
    if ended and cause is None and (last or found.reason):
        cause = find_cause(last or found.reason)
    return {
        **about,
        "complete": False,
        "at": status.ended_at or status.heartbeat_at,
        "attempt": attempt,
        "cause": cause_as_dict(cause) if cause else None,
        "remark": KILLED if ended and attempt else None,
        "failures": failures,
        "driver": {"lines": last_lines(masked(text))},
    }


def _pods(run: "Run", status: "Status", named: "Profile | None") -> str | None:
    """What Kubernetes still says about the run's pods; None if no cluster can be asked."""
    from cifarray.backends.observe import PATIENCE_S
    from cifarray.backends.trust import recorded_backend
    from cifarray.errors import ClusterError

    record = status.cluster or {}
    if not record.get("job_id"):
        return None
    try:
        backend = recorded_backend(run, record, named, PATIENCE_S)
        return (backend and backend.explain(str(record["job_id"]))) or None
    except ClusterError:
        return None


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    cause, worker = _record(told.get("cause")), _record(told.get("worker"))
    yield "run", told["run_id"]
    yield "state", told["state"]
    yield "reason", told["reason"]
    yield "cause", cause.get("sentence")
    yield "remedy", cause.get("remedy")
    yield "remark", told.get("remark")
    yield "when", f"{told.get('at')}, attempt {told.get('attempt')}" if told.get("at") else None
    if worker:
        yield "worker", f"rank {worker.get('rank')} on {worker.get('host') or 'an unknown host'}"
    for failure in told.get("failures") or ():
        said = "; ".join(f"rank {r}: {text}" for r, text in _record(failure.get("workers")).items())
        yield "before", f"{failure.get('at')}: {said}"
    yield "pods", told.get("pods")
    yield "machine", _machine(_record(told.get("machine")))
    versions = _record(told.get("versions"))
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "log", told["log"]
    yield "next", told["next"]


def _machine(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    memory, load = _record(found.get("memory_bytes")), found.get("load") or [None]
    free, total = memory.get("MemAvailable"), memory.get("MemTotal")
    free_memory = (
        f", {written_bytes(free)} of {written_bytes(total)} memory free" if free and total else ""
    )
    return f"{found.get('host')}: load {load[0]} on {found.get('cores')} cores{free_memory}"


def _logs(told: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The ends of the logs: Ray's events, the workers', the driver's last."""
    events = told.get("ray_events") or []
    if events:
        yield "the last of Ray's events", [str(line) for line in events[-SHOWN_LINES:]]
    for name, lines in list(_record(told.get("workers")).items())[:SHOWN_LOGS]:
        yield f"the last lines of {name}", [str(line) for line in lines[-SHOWN_LINES:]]
    lines = _record(told.get("driver")).get("lines") or []
    yield (
        "the last lines of the driver's log" if lines else "its driver left no log",
        [str(line) for line in lines[-SHOWN_LINES:]],
    )


def _record(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
