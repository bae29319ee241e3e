"""What `status.json` says of a run."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from cifarray.spec.bounds import parse_json
from cifarray.store.layout import STATUS_FILE

RunState = Literal["pending", "running", "finished", "failed", "stopped"]
ENDED: tuple[RunState, ...] = ("finished", "failed", "stopped")


@dataclass(frozen=True)
class Status:
    """A run's state; times are ISO 8601 in UTC."""

    state: RunState
    job: str = ""
    kind: str = ""
    attempts: int = 0
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    heartbeat_at: str | None = None
    error: str | None = None
    best: dict[str, Any] | None = None
    """{"metric": "validation.top1", "value": 0.97, "epoch": 3}"""
    progress: dict[str, Any] | None = None
    cluster: dict[str, Any] | None = None
    """{"profile", "dashboard", "job_id", "address"}"""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return dataclasses.asdict(self)

    def seconds(self) -> float | None:
        """From submission to the end, or until now for a live run; None if unknown."""
        start = parse_time(self.submitted_at)
        over = self.state in ENDED
        end = parse_time(self.ended_at) or (parse_time(self.heartbeat_at) if over else None)
        if start is None or (over and end is None):
            return None
        return ((end or datetime.now(UTC)) - start).total_seconds()


def read_status(data: bytes) -> Status:
    """The status in these bytes; damaged ones give a failed run whose error says so."""
    try:
        values = parse_json(data)
        return _validated(values)
    except (ValueError, TypeError) as error:
        return Status("failed", error=f"{STATUS_FILE} is damaged ({error})")


def _validated(values: Any) -> Status:
    if not isinstance(values, dict):
        raise ValueError("it has no fields")
    known: dict[str, Any] = {}
    for field in dataclasses.fields(Status):
        if field.name not in values:
            continue
        value = values[field.name]
        if not _fits(field.name, value):
            raise ValueError(f"{field.name} is {value!r}")
        known[field.name] = value
    if "state" not in known:
        raise ValueError("it has no state")
    return Status(**known)


def _fits(name: str, value: Any) -> bool:
    if name == "state":
        return value in get_args(RunState)
    if name == "attempts":
        return isinstance(value, int) and value >= 0
    if name in ("job", "kind"):
        return isinstance(value, str)
    if name in ("best", "progress", "cluster"):
        return value is None or isinstance(value, dict)
    return value is None or isinstance(value, str)


def heartbeat_age_s(status: Status, at: datetime | None = None) -> float | None:
    """Seconds since the last heartbeat of a running run, by this machine's clock, to be shown.

    None for any other run, and where the record lies ahead of this clock. No decision may rest on
    it: the two times come from two clocks.
    """
    heartbeat = parse_time(status.heartbeat_at) if status.state == "running" else None
    age_s = ((at or datetime.now(UTC)) - heartbeat).total_seconds() if heartbeat else -1.0
    return age_s if age_s >= 0 else None


def now() -> str:
    """The time as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse_time(text: str | None) -> datetime | None:
    """The time that a record holds; None if it holds none."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
