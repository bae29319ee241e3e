"""A run as the exporter saw it, and the samples that this gives."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from cifarray.metrics import OBJECTIVES, TRAIN_LOSS, Sample, finite
from cifarray.runs import ENDED, RunState, Status, heartbeat_age_s
from cifarray.runs.status import parse_time

STATES = (*get_args(RunState), "lost")


@dataclass(frozen=True)
class Seen:
    """What was read of a run, and when."""

    status: Status
    state: str
    """As it is shown to people: a run that is recorded as running and dead is lost."""
    gpus: float | None
    """Of all its workers together; None where job.yaml cannot be read."""
    at: datetime

    @property
    def ended_at(self) -> datetime | None:
        """When it ended; None for one that has not, and where nothing says when."""
        return parse_time(self.status.ended_at) if self.state in ENDED else None

    @property
    def heartbeat_age_s(self) -> float | None:
        """How long ago a running run's heartbeat was, by two clocks; None for any other."""
        if self.status.state != "running" or parse_time(self.status.heartbeat_at) is None:
            return None
        return heartbeat_age_s(self.status, self.at) or 0.0

    @property
    def gpu_seconds(self) -> float:
        """GPUs times the time from the run's beginning to its end or last sign of life.

        The time between two attempts counts, though a cluster may have given its GPUs back then.
        """
        began = parse_time(self.status.started_at)
        last = self.at if self.state == "running" else parse_time(self.status.heartbeat_at)
        end = self.ended_at or last
        if began is None or end is None:
            return 0.0
        return max(0.0, (end - began).total_seconds()) * (self.gpus or 0.0)


def run_samples(run_id: str, seen: Seen) -> Iterator[Sample]:
    """A run's own series."""
    status = seen.status
    labels = {"run": run_id, "job_name": status.job}
    yield Sample("cifarray_run_attempts", status.attempts, labels)
    yield Sample("cifarray_run_gpu_seconds", seen.gpu_seconds, labels)
    if (age_s := seen.heartbeat_age_s) is not None:
        yield Sample("cifarray_run_heartbeat_age_seconds", age_s, labels)
    best = status.best or {}
    metric, value = best.get("metric"), finite(best.get("value"))
    if metric in OBJECTIVES and value is not None:
        yield Sample("cifarray_run_best", value, {**labels, "metric": str(metric)})
    progress = status.progress or {}
    epochs = finite(progress.get("done" if progress.get("unit") == "epochs" else "epochs"))
    if epochs is not None:
        yield Sample("cifarray_run_epochs", epochs, {**labels, "kind": status.kind})
    last = progress.get("last")
    if isinstance(last, dict) and TRAIN_LOSS in last:
        is_nan = finite(last[TRAIN_LOSS]) is None
        yield Sample("cifarray_run_loss_is_nan", float(is_nan), labels)


def job_samples(runs: Iterable[Seen]) -> Iterator[Sample]:
    """What all the runs of each job have used, and when the last of them finished."""
    used: dict[str, float] = defaultdict(float)
    finished: dict[str, float] = {}
    for seen in runs:
        job = seen.status.job
        used[job] += seen.gpu_seconds
        if seen.state == "finished" and seen.ended_at is not None:
            finished[job] = max(finished.get(job, 0.0), seen.ended_at.timestamp())
    for job, seconds in used.items():
        yield Sample("cifarray_job_gpu_seconds", seconds, {"job_name": job})
    for job, at in finished.items():
        yield Sample("cifarray_job_last_success_timestamp_seconds", at, {"job_name": job})
