"""What a record shows, and that a figure which is no number is counted, not shown."""

import math
from typing import Any

import pytest

from cifarray.metrics import TRAINING, Sample, epoch_samples
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits

OF_CHECKPOINTS = {"cifarray_checkpoint_age_seconds", "cifarray_checkpoint_seconds"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A small training that has ended."""
    session = Digits.prepared_in(tmp_path_factory.mktemp("digits")).trainer()
    for _ in session.records():
        pass
    return session


def by_name(samples: list[Sample]) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_every_metric_of_a_training_is_shown_from_its_records(session: Trainer):
    samples = epoch_samples(session.history, gpu_memory_bytes=1 << 30)
    assert {sample.name for sample in samples} == set(TRAINING) - OF_CHECKPOINTS
    shown, last = by_name(samples), session.history[-1]
    assert shown["cifarray_epoch",] == 2
    assert shown["cifarray_step",] == last["step"]
    assert shown["cifarray_loss", "train"] == last["train.running_loss"]
    assert shown["cifarray_loss", "validation"] == last["validation.loss"]
    assert shown["cifarray_top1_ratio", "train"] == last["train.running_top1"]
    assert shown["cifarray_top1_ratio", "validation"] == last["validation.top1"]
    assert shown["cifarray_learning_rate",] == last["lr"]
    assert shown["cifarray_images_per_second",] == last["images_per_s"]
    assert shown["cifarray_data_wait_ratio",] == last["data_wait"]
    assert shown["cifarray_epoch_seconds",] == last["epoch_s"]
    assert shown["cifarray_gpu_memory_bytes",] == 1 << 30
    assert shown["cifarray_nan_epochs",] == 0


def test_a_session_on_a_cpu_has_no_gpu_memory_to_show(session: Trainer):
    assert session.gpu_memory_bytes is None
    samples = epoch_samples(session.history, session.gpu_memory_bytes)
    assert "cifarray_gpu_memory_bytes" not in {sample.name for sample in samples}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_a_loss_that_is_no_number_is_counted_and_not_shown(session: Trainer, loss: Any):
    broken = {**session.history[-1], "train.running_loss": loss}
    shown = by_name(epoch_samples([*session.history, broken, broken], None))
    assert shown["cifarray_nan_epochs",] == 2
    assert ("cifarray_loss", "train") not in shown
    assert all(math.isfinite(value) for value in shown.values())


def test_before_the_first_epoch_there_is_nothing_to_show():
    assert epoch_samples([], 1) == []


def test_every_samples_labels_are_the_metrics_own(session: Trainer):
    added = {"run", "trial", "job_name"}
    for sample in epoch_samples(session.history, 1):
        assert set(sample.labels) | added == set(TRAINING[sample.name].labels)
