"""What a training shows while it lives; that Ray takes it is a matter of the integration tests."""

import threading
import time

import pytest

from cifarray.metrics import TRAINING
from cifarray.monitoring.ray_metrics import LiveMetrics, live_metrics
from tests.unit.test_imports import PACKAGE, imported_names

RECORD = {"epoch": 3, "step": 30, "train.running_loss": 0.5, "lr": 0.1, "data_wait": 0.2}
LABELS = {"run": "a-run", "trial": "a-trial", "job_name": "a-job"}


def values(live: LiveMetrics) -> dict[str, float]:
    return {sample.name: sample.value for sample in live.samples()}


def test_a_checkpoints_age_counts_from_the_start_until_there_is_one():
    live = LiveMetrics(LABELS)
    time.sleep(0.05)
    assert values(live)["cifarray_checkpoint_age_seconds"] >= 0.05
    assert "cifarray_checkpoint_seconds" not in values(live)
    with live.keeping_checkpoint():
        time.sleep(0.03)
    kept = values(live)
    assert kept["cifarray_checkpoint_seconds"] >= 0.03
    assert kept["cifarray_checkpoint_age_seconds"] < 0.05


def test_a_checkpoint_that_could_not_be_kept_counts_as_none():
    live = LiveMetrics(LABELS)
    time.sleep(0.02)
    with pytest.raises(OSError), live.keeping_checkpoint():
        raise OSError("the disk is full")
    assert "cifarray_checkpoint_seconds" not in values(live)
    assert values(live)["cifarray_checkpoint_age_seconds"] >= 0.02


def test_the_last_record_is_shown_with_the_labels_of_each_metric():
    live = LiveMetrics(LABELS)
    live.show([RECORD], None)
    with live.keeping_checkpoint():
        pass
    assert values(live)["cifarray_epoch"] == 3
    for sample in live.samples():
        assert set(sample.labels) == set(TRAINING[sample.name].labels)
        assert LABELS.items() <= sample.labels.items()


def test_only_the_first_worker_exports():
    with live_metrics("a-run", "", "a-job", rank=1) as live:
        live.show([RECORD], None)
        assert "metrics of a-run" not in {thread.name for thread in threading.enumerate()}
    assert values(live)["cifarray_epoch"] == 3


def test_a_trainer_alone_never_touches_rays_metrics():
    adapter = "cifarray.monitoring.ray_metrics"
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(f"{name}.".startswith(f"{adapter}.") for name in imported_names(path))
    }
    assert importers == {"training/worker.py"}
