"""A run's status in one line: epochs or trials done, the best value, the time left."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cifarray.metrics import DEFAULT_OBJECTIVE
from cifarray.runs import Status
from cifarray.runs.status import parse_time


class TimeEstimate:
    """Estimates a run's remaining time from its speed while it is watched."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._now = clock
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None

    def remaining_s(self, status: Status) -> float | None:
        """Seconds to the end of the last epoch or trial; None if unknown."""
        progress = status.progress or {}
        done, total = _number(progress.get("done")), _number(progress.get("total"))
        if not total or done is None or not 0 < done < total:
            return None
        if self._last is None or done != self._last[1]:
            self._last = (self._now(), done)
            self._first = self._first or self._last
        if self._first is None or self._first == self._last:
            return _first_guess_s(status, progress, done, total)
        (began, done_then), (changed, _) = self._first, self._last
        return (total - done) * (changed - began) / (done - done_then) - (self._now() - changed)


def _first_guess_s(
    status: Status, progress: dict[str, Any], done: float, total: float
) -> float | None:
    """Before anything was seen to be done: the last epoch's time, or the time of all trials."""
    if progress.get("unit") == "trials":
        return seconds_since(status.started_at) * (total - done) / done
    epoch_s = _number(_record(progress.get("last")).get("epoch_s"))
    return None if epoch_s is None else (total - done) * epoch_s


def progress_line(status: Status, remaining_s: float | None = None) -> str:
    """`epoch 3/30  validation.top1 0.412 (best 0.412)  812 images/s  ETA 1:20`, or of trials."""
    progress = status.progress or {}
    if waited_for := waits_for(status):
        return f"waiting for {waited_for}"
    if progress.get("unit") == "trials":
        line = _trials_line(status, progress)
    elif progress.get("unit") == "epochs":
        line = _epochs_line(status, progress)
    else:
        return "starting workers" if status.state == "running" else status.state
    if status.state == "running" and fraction_done(status) == 1.0:
        return f"{line}  evaluating, writing the report"
    return line if remaining_s is None else f"{line}  ETA {clock(remaining_s)}"


def waits_for(status: Status) -> str:
    """What a running run's driver waits for before it can begin; empty if for nothing."""
    text = (status.progress or {}).get("waits_for")
    return text if isinstance(text, str) and status.state == "running" else ""


def failures_line(progress: dict[str, Any]) -> str:
    """`workers were replaced twice, last at ...: worker 1: the node died`; empty if never."""
    count, last = _number(progress.get("failures")), _record(progress.get("last_failure"))
    if not count:
        return ""
    times = "once" if count == 1 else f"{count:.0f} times"
    workers = _record(last.get("workers"))
    told = "; ".join(f"worker {rank}: {text}" for rank, text in workers.items())
    return f"workers were replaced {times}, last at {last.get('at')}: {told}"


def _epochs_line(status: Status, progress: dict[str, Any]) -> str:
    done, total = _number(progress.get("done")), _number(progress.get("total"))
    last = _record(progress.get("last"))
    if not done:
        return "starting workers"
    parts = [f"epoch {done:.0f}/{total:.0f}" if total else f"epoch {done:.0f}"]
    best = status.best or {}
    metric = str(best.get("metric") or DEFAULT_OBJECTIVE)
    value, best_value = _number(last.get(metric)), _number(best.get("value"))
    if value is not None and best_value is not None:
        parts.append(f"{metric} {value:.4f} (best {best_value:.4f})")
    if (speed := _number(last.get("images_per_s"))) is not None:
        parts.append(f"{speed:,.0f} images/s")
    return "  ".join(parts)


def _trials_line(status: Status, progress: dict[str, Any]) -> str:
    done, total = _number(progress.get("done")) or 0, _number(progress.get("total"))
    running = _number(progress.get("running")) or 0
    stopped = _number(progress.get("stopped_early")) or 0
    head = f"trials {done:.0f}/{total:.0f}" if total else f"trials {done:.0f}"
    parts = [f"{head} done, {running:.0f} running, {stopped:.0f} stopped early"]
    best = status.best or {}
    if (value := _number(best.get("value"))) is not None:
        params = _record(best.get("params"))
        shown = ", ".join(f"{_label(path)} {_short(v)}" for path, v in params.items())
        parts.append(f"best {best.get('metric')} {value:.4f}" + (f" ({shown})" if shown else ""))
    return "  ".join(parts)


def fraction_done(status: Status) -> float | None:
    """How much of the run is over, 0 to 1; None if its length is not known."""
    progress = status.progress or {}
    done, total = _number(progress.get("done")), _number(progress.get("total"))
    return min(1.0, done / total) if done is not None and total else None


def _record(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _label(path: str) -> str:
    """`lr` for optimizer.lr, `optimizer` for optimizer.name."""
    head, _, last = path.rpartition(".")
    return (head.rpartition(".")[2] or last) if last == "name" else last


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:07:00."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rough_time(seconds: float) -> str:
    """Seconds in the largest unit that says enough: 95 s, 8 min, 3 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def seconds_since(text: str | None) -> float:
    """Seconds since a recorded time; 0 if there is none."""
    then = parse_time(text)
    return (datetime.now(UTC) - then).total_seconds() if then else 0.0
