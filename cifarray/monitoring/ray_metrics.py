"""The adapter to ray.util.metrics: exports a training's metrics through its Ray node."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from ray.util.metrics import Gauge

from cifarray.metrics import TRAINING, Sample, epoch_samples
from cifarray.timers import every

REFRESH_S = 5.0
"""Below Ray's own interval of 10 s: it drops a gauge that was not set again in two of them, and so
those of a worker that is gone."""


class LiveMetrics:
    """What a training shows. Only the first of its workers does."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._epoch: Sequence[Sample] = ()
        self._checkpoint_s: float | None = None
        self._kept_at = time.monotonic()

    def show(self, history: Sequence[Mapping[str, Any]], gpu_memory_bytes: int | None) -> None:
        """Show the last of the records from now on."""
        self._epoch = epoch_samples(history, gpu_memory_bytes)

    @contextmanager
    def keeping_checkpoint(self) -> Iterator[None]:
        """Measure the time to store a checkpoint, whose age counts from then on."""
        begun = time.monotonic()
        yield
        self._kept_at = time.monotonic()
        self._checkpoint_s = self._kept_at - begun

    def samples(self) -> list[Sample]:
        """All that is shown at this moment."""
        found = [*self._epoch]
        found.append(Sample("cifarray_checkpoint_age_seconds", time.monotonic() - self._kept_at))
        if self._checkpoint_s is not None:
            found.append(Sample("cifarray_checkpoint_seconds", self._checkpoint_s))
        return [sample._replace(labels={**self._labels, **sample.labels}) for sample in found]


@contextmanager
def live_metrics(run_id: str, trial_id: str, job_name: str, rank: int) -> Iterator[LiveMetrics]:
    """Export the current values until the training ends, and once more at its end."""
    live = LiveMetrics({"run": run_id, "trial": trial_id, "job_name": job_name})
    if rank != 0:
        yield live
        return

    def refresh() -> None:
        for sample in live.samples():
            _gauge(sample.name).set(sample.value, dict(sample.labels))

    name = f"metrics of {run_id}"
    with every(REFRESH_S, refresh, name, at_once=True, at_end=True, join_s=REFRESH_S):
        yield live


@cache
def _gauge(name: str) -> Gauge:
    metric = TRAINING[name]
    return Gauge(name, metric.help, tag_keys=metric.labels)
