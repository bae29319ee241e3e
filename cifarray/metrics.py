"""The registry of metrics (direction, names in Prometheus and TensorBoard, panel), and `best`.

`EPOCH` lists the fields of an epoch's record. A new field is an entry there and, if it is exported
under a name of its own, one in `TRAINING`.

A job's name is the label `job_name`, since Prometheus sets `job` itself on everything it scrapes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Record = Mapping[str, Any]
Direction = Literal["max", "min"]
Unit = Literal["number", "seconds", "bytes", "ratio", "timestamp", "images_per_second"]

RAY_PREFIX = "ray_"
"""What Ray puts before the names of metrics that are exported through it."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Panel:
    """How the dashboard shows a metric: over time, or its last values."""

    row: Literal["Runs", "Training", "Speed", "Store"]
    title: str
    kind: Literal["timeseries", "stat"] = "timeseries"


@dataclass(frozen=True)
class Metric:
    """An exported metric; its name is the key under which it is registered."""

    labels: tuple[str, ...]
    unit: Unit
    help: str
    panel: Panel
    kind: Literal["gauge", "counter"] = "gauge"


class Sample(NamedTuple):
    """A value of a registered metric."""

    name: str
    value: float
    labels: Mapping[str, str] = NO_LABELS


@dataclass(frozen=True)
class EpochField:
    """A figure in every epoch's record."""

    better: Direction | None = None
    """Which way is better; None for what no job can optimize."""
    exported: str | None = None
    """The metric of `TRAINING` that shows it."""
    split: str | None = None
    """The value of that metric's label `split`."""
    tensorboard: str | None = None
    """Its scalar in TensorBoard."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the exported metric that are this field's own."""
        return NO_LABELS if self.split is None else {"split": self.split}


TRAIN_LOSS = "train.running_loss"
DEFAULT_OBJECTIVE = "validation.top1"
"""The metric that a job optimizes by default."""

EPOCH: dict[str, EpochField] = {
    "epoch": EpochField(exported="cifarray_epoch"),
    "step": EpochField(exported="cifarray_step"),
    TRAIN_LOSS: EpochField("min", "cifarray_loss", "train", "loss/train"),
    "validation.loss": EpochField("min", "cifarray_loss", "validation", "loss/validation"),
    "train.running_top1": EpochField("max", "cifarray_top1_ratio", "train", "top1/train"),
    DEFAULT_OBJECTIVE: EpochField("max", "cifarray_top1_ratio", "validation", "top1/validation"),
    "validation.top5": EpochField("max", tensorboard="top5/validation"),
    "lr": EpochField(exported="cifarray_learning_rate", tensorboard="lr"),
    "images_per_s": EpochField(
        exported="cifarray_images_per_second", tensorboard="speed/images_per_s"
    ),
    "data_wait": EpochField(exported="cifarray_data_wait_ratio"),
    "epoch_s": EpochField(exported="cifarray_epoch_seconds", tensorboard="speed/epoch_s"),
}

OBJECTIVES: dict[str, Direction] = {
    name: field.better for name, field in EPOCH.items() if field.better is not None
}
"""What a job may optimize, stop by or rank trials by, and which way is better."""

OF_TRAINING = ("run", "trial", "job_name")
"""`trial` is empty, and so absent, outside a sweep."""
OF_SPLIT = (*OF_TRAINING, "split")
OF_RUN = ("run", "job_name")

TRAINING: dict[str, Metric] = {
    "cifarray_loss": Metric(
        OF_SPLIT,
        "number",
        "Loss of the last epoch; for train as measured during training",
        Panel("Training", "Loss"),
    ),
    "cifarray_top1_ratio": Metric(
        OF_SPLIT,
        "ratio",
        "Top-1 of the last epoch; for train as measured during training",
        Panel("Training", "Top-1"),
    ),
    "cifarray_learning_rate": Metric(
        OF_TRAINING,
        "number",
        "Learning rate of the last step of the last epoch",
        Panel("Training", "Learning rate"),
    ),
    "cifarray_epoch": Metric(OF_TRAINING, "number", "Epochs trained", Panel("Training", "Epoch")),
    "cifarray_step": Metric(
        OF_TRAINING, "number", "Optimizer updates so far", Panel("Training", "Step")
    ),
    "cifarray_nan_epochs": Metric(
        OF_TRAINING,
        "number",
        "Epochs whose loss was not a finite number",
        Panel("Training", "Epochs whose loss was not a number"),
    ),
    "cifarray_images_per_second": Metric(
        OF_TRAINING,
        "images_per_second",
        "Training images per second of step time, all workers together",
        Panel("Speed", "Images per second"),
    ),
    "cifarray_data_wait_ratio": Metric(
        OF_TRAINING,
        "ratio",
        "Share of step time spent waiting for batches",
        Panel("Speed", "Waiting for data"),
    ),
    "cifarray_gpu_memory_bytes": Metric(
        OF_TRAINING,
        "bytes",
        "GPU memory allocated by torch on the first worker",
        Panel("Speed", "GPU memory of the first worker"),
    ),
    "cifarray_epoch_seconds": Metric(
        OF_TRAINING,
        "seconds",
        "Duration of the last epoch, including evaluation",
        Panel("Speed", "Time per epoch"),
    ),
    "cifarray_checkpoint_seconds": Metric(
        OF_TRAINING,
        "seconds",
        "Time to write and store the last checkpoint",
        Panel("Speed", "Time per checkpoint"),
    ),
    "cifarray_checkpoint_age_seconds": Metric(
        OF_TRAINING,
        "seconds",
        "Time since the last checkpoint, or since the workers started",
        Panel("Speed", "Age of the last checkpoint"),
    ),
}
"""Exported by a training's first worker through Ray, as long as the worker runs. All are gauges:
a counter would stay on the node after the run."""

STORE: dict[str, Metric] = {
    "cifarray_runs": Metric(
        ("state",), "number", "Runs in the store", Panel("Runs", "Runs by state", "stat")
    ),
    "cifarray_run_best": Metric(
        (*OF_RUN, "metric"),
        "number",
        "Best value of the job's metric so far",
        Panel("Runs", "Best value of the job's metric"),
    ),
    "cifarray_run_epochs": Metric(
        (*OF_RUN, "kind"),
        "number",
        "Epochs trained; for a sweep, over all trials",
        Panel("Runs", "Epochs, over all trials"),
    ),
    "cifarray_run_heartbeat_age_seconds": Metric(
        OF_RUN,
        "seconds",
        "Time since the last heartbeat of a running run's driver",
        Panel("Runs", "Heartbeat age"),
    ),
    "cifarray_run_attempts": Metric(
        OF_RUN, "number", "Attempts of the run so far", Panel("Runs", "Attempts")
    ),
    "cifarray_run_loss_is_nan": Metric(
        OF_RUN,
        "number",
        "1 if the last epoch's loss was not a finite number",
        Panel("Runs", "Loss is not a number"),
    ),
    "cifarray_run_gpu_seconds": Metric(
        OF_RUN,
        "seconds",
        "Number of GPUs times the time since the run started",
        Panel("Runs", "GPU time per run"),
    ),
    "cifarray_job_gpu_seconds": Metric(
        ("job_name",),
        "seconds",
        "GPU time of all runs of the job in the store",
        Panel("Runs", "GPU time per job"),
    ),
    "cifarray_job_last_success_timestamp_seconds": Metric(
        ("job_name",),
        "timestamp",
        "Time when a run of the job last finished",
        Panel("Runs", "Time since a job's last success", "stat"),
    ),
    "cifarray_store_up": Metric(
        (),
        "number",
        "1 if the store could be read in the last round",
        Panel("Store", "Store can be read", "stat"),
    ),
    "cifarray_store_read_seconds": Metric(
        (),
        "seconds",
        "Duration of the last round of reading",
        Panel("Store", "Time to read the store"),
    ),
    "cifarray_store_read_errors_total": Metric(
        (),
        "number",
        "Failed reads of the store",
        Panel("Store", "Failed reads in 5 minutes"),
        kind="counter",
    ),
    "cifarray_store_last_read_timestamp_seconds": Metric(
        (),
        "timestamp",
        "Time of the last successful read of the store",
        Panel("Store", "Time since the last read", "stat"),
    ),
}
"""Exported by `cifarray exporter` from the store's content. Metrics with a label `run` exist
while a run is active, and for a while after its end."""

FOREIGN: dict[str, str] = {
    "kube_pod_container_status_restarts_total": "kube-state-metrics",
}
"""Metrics of other exporters that alerts may use, and who exports them."""


def scraped() -> dict[str, Metric]:
    """Every metric of ours under its name in Prometheus."""
    return {f"{RAY_PREFIX}{name}": metric for name, metric in TRAINING.items()} | STORE


def epoch_samples(history: Sequence[Record], gpu_memory_bytes: int | None) -> list[Sample]:
    """The metrics of the last of some records; a figure that is not a finite number is left out."""
    if not history:
        return []
    found = [
        (field.exported, finite(history[-1].get(name)), field.labels)
        for name, field in EPOCH.items()
        if field.exported is not None
    ]
    diverged = sum(finite(record.get(TRAIN_LOSS)) is None for record in history)
    found += [
        ("cifarray_gpu_memory_bytes", finite(gpu_memory_bytes), NO_LABELS),
        ("cifarray_nan_epochs", float(diverged), NO_LABELS),
    ]
    return [Sample(name, value, labels) for name, value, labels in found if value is not None]


def finite(value: object) -> float | None:
    """The number; None for anything else, NaN, infinities and booleans included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value) if math.isfinite(value) else None


def is_better(metric: str, value: float, than: float, by: float = 0.0) -> bool:
    """Whether a value of this metric beats another by more than `by`."""
    return value > than + by if OBJECTIVES[metric] == "max" else value < than - by


def ranked(items: Iterable[T], metric: str, value: Callable[[T], object]) -> list[T]:
    """The items with a finite value of the metric, best first; of equals the order stays."""
    sign = -1.0 if OBJECTIVES[metric] == "max" else 1.0
    scored = [(found, item) for item in items if (found := finite(value(item))) is not None]
    return [item for _, item in sorted(scored, key=lambda pair: sign * pair[0])]


def best(items: Iterable[T], metric: str, value: Callable[[T], object]) -> T | None:
    """The first item that has the best value of the metric; None if none has a finite one."""
    return next(iter(ranked(items, metric, value)), None)


def epoch_value(record: Record, metric: str) -> float | None:
    """An epoch's value of the metric; None if it diverged, since its checkpoint is not kept."""
    diverged = TRAIN_LOSS in record and finite(record[TRAIN_LOSS]) is None
    return None if diverged else finite(record.get(metric))


def best_epoch(history: Iterable[Record], metric: str) -> Record | None:
    """The record of the first epoch that reached the best value of the metric.

    `history` is in the order of epochs. Everything that names a best epoch asks here.
    """
    return best(history, metric, lambda record: epoch_value(record, metric))
