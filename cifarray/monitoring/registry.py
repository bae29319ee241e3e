"""Every metric that cifarray exports; alerts and the dashboard may name no other.

A job's name is the label `job_name`, since Prometheus sets `job` itself on all that it scrapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

RAY_PREFIX = "ray_"
"""What Ray puts before the names of metrics that are exported through it."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Metric:
    """What a metric is; its name is the key under which it is registered."""

    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    unit: Literal["number", "seconds", "bytes", "ratio", "timestamp", "images_per_second"]
    help: str


class Sample(NamedTuple):
    """A value of a registered metric."""

    name: str
    value: float
    labels: Mapping[str, str] = NO_LABELS


OF_TRAINING = ("run", "trial", "job_name")
"""`trial` is empty, and so absent, outside a sweep."""
OF_SPLIT = (*OF_TRAINING, "split")
OF_RUN = ("run", "job_name")

TRAINING: dict[str, Metric] = {
    "cifarray_epoch": Metric("gauge", OF_TRAINING, "number", "Epochs trained"),
    "cifarray_step": Metric("gauge", OF_TRAINING, "number", "Optimizer updates so far"),
    "cifarray_loss": Metric(
        "gauge", OF_SPLIT, "number", "Loss of the last epoch; of train as seen while training"
    ),
    "cifarray_top1_ratio": Metric(
        "gauge", OF_SPLIT, "ratio", "Top-1 of the last epoch; of train as seen while training"
    ),
    "cifarray_learning_rate": Metric(
        "gauge", OF_TRAINING, "number", "Learning rate of the last epoch's last step"
    ),
    "cifarray_images_per_second": Metric(
        "gauge", OF_TRAINING, "images_per_second", "Train rows over step time, all workers together"
    ),
    "cifarray_data_wait_ratio": Metric(
        "gauge", OF_TRAINING, "ratio", "Share of step time in which a step waited for its batch"
    ),
    "cifarray_epoch_seconds": Metric(
        "gauge", OF_TRAINING, "seconds", "Time of the last epoch, with its evaluation"
    ),
    "cifarray_checkpoint_age_seconds": Metric(
        "gauge", OF_TRAINING, "seconds", "Since the last checkpoint, or since the workers began"
    ),
    "cifarray_checkpoint_seconds": Metric(
        "gauge", OF_TRAINING, "seconds", "Time to write the last checkpoint and to store it"
    ),
    "cifarray_gpu_memory_bytes": Metric(
        "gauge", OF_TRAINING, "bytes", "What torch holds of the first worker's GPU"
    ),
    "cifarray_nan_epochs": Metric(
        "gauge", OF_TRAINING, "number", "Epochs whose loss was not a finite number"
    ),
}
"""Exported by a training's first worker through Ray, for as long as it lives. Gauges all of them:
a counter would stay on the node after the run."""

STORE: dict[str, Metric] = {
    "cifarray_runs": Metric("gauge", ("state",), "number", "Runs in the store"),
    "cifarray_run_best": Metric(
        "gauge", (*OF_RUN, "metric"), "number", "Best value of the job's metric so far"
    ),
    "cifarray_run_heartbeat_age_seconds": Metric(
        "gauge", OF_RUN, "seconds", "Since the driver of a running run was last heard of"
    ),
    "cifarray_run_epochs": Metric(
        "gauge", (*OF_RUN, "kind"), "number", "Epochs trained; of a sweep, over all trials"
    ),
    "cifarray_run_attempts": Metric("gauge", OF_RUN, "number", "Lives of the run's driver"),
    "cifarray_run_loss_is_nan": Metric(
        "gauge", OF_RUN, "number", "1 if the last epoch's loss was not a finite number"
    ),
    "cifarray_run_gpu_seconds": Metric(
        "gauge", OF_RUN, "seconds", "GPUs of the run times the time since it began"
    ),
    "cifarray_job_gpu_seconds": Metric(
        "gauge", ("job_name",), "seconds", "GPU time of all the job's runs in the store"
    ),
    "cifarray_job_last_success_timestamp_seconds": Metric(
        "gauge", ("job_name",), "timestamp", "When a run of the job last finished"
    ),
    "cifarray_store_up": Metric(
        "gauge", (), "number", "1 if the store could be read in the last round"
    ),
    "cifarray_store_last_read_timestamp_seconds": Metric(
        "gauge", (), "timestamp", "When the store could last be read"
    ),
    "cifarray_store_read_seconds": Metric("gauge", (), "seconds", "Time of the last round"),
    "cifarray_store_read_errors_total": Metric(
        "counter", (), "number", "Reads of the store that failed"
    ),
}
"""Exported by `cifarray exporter` from what the store holds. Those with a label `run` are there
while a run lives, and for a while after its end."""

FOREIGN: dict[str, str] = {
    "kube_pod_container_status_restarts_total": "kube-state-metrics",
}
"""Metrics of others that alerts may name, and who exports them."""


def scraped() -> dict[str, Metric]:
    """Every metric of ours under the name that Prometheus finds."""
    return {f"{RAY_PREFIX}{name}": metric for name, metric in TRAINING.items()} | STORE
