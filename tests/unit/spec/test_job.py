"""What a job may say, and by what its best checkpoint is chosen."""

from typing import Any

import pytest
from pydantic import ValidationError

from cifarray.metrics import OBJECTIVES, is_better
from cifarray.spec.job import Job, ModelSpec, ScheduleSpec, TrainSpec
from cifarray.spec.profile import Profile
from tests.digit_sessions import small_job

SWEEP = {"space": {"optimizer.lr": {"choice": [0.1]}}}


@pytest.mark.parametrize(
    ("sections", "metric"),
    [
        ({}, "validation.top1"),
        ({"train": {"early_stopping": {"metric": "validation.loss"}}}, "validation.loss"),
        ({"train": {"early_stopping": {}}}, "validation.top1"),
        ({"kind": "tune", "sweep": {**SWEEP, "metric": "validation.top5"}}, "validation.top5"),
    ],
)
def test_the_best_checkpoint_is_chosen_by_the_metric_that_the_job_stops_or_sweeps_by(
    sections: dict[str, Any], metric: str
):
    assert small_job(**sections).metric == metric


@pytest.mark.parametrize("kind", ["train", "tune"])
def test_a_tune_job_has_a_sweep_and_a_train_job_has_none(kind: str):
    with pytest.raises(ValidationError, match="one of kind train has none"):
        small_job(kind=kind, sweep=SWEEP if kind == "train" else None)


@pytest.mark.parametrize("record", [Job, Profile, ModelSpec])
def test_unknown_fields_are_refused(record: Any):
    with pytest.raises(ValidationError, match="Extra inputs"):
        record.model_validate({"name": "x", "kind": "local", "color": "red"})


def test_records_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        small_job().train.epochs = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    "fields", [{"warmup_epochs": 1, "warmup_steps": 2}, {"every_epochs": 1, "every_steps": 2}]
)
def test_a_duration_has_one_unit(fields: dict[str, float]):
    with pytest.raises(ValidationError, match=r"give \w+_epochs or \w+_steps, not both"):
        ScheduleSpec.model_validate(fields)


def test_dropout_is_said_in_one_way():
    with pytest.raises(ValidationError, match=r"give dropout .* or dropouts .* not both"):
        ModelSpec(name="cnn3", dropout=0.1, dropouts=(0.1, 0.1, 0.1))


def test_a_training_has_an_end():
    with pytest.raises(ValidationError, match="give epochs or steps"):
        TrainSpec()
    assert TrainSpec(epochs=1, steps=3).steps == 3


def test_every_metric_knows_which_way_is_better():
    for metric, way in OBJECTIVES.items():
        assert is_better(metric, 2.0, 1.0) is (way == "max")
        assert is_better(metric, 1.0, 2.0) is (way == "min")
        assert not is_better(metric, 1.0, 1.0)
        assert metric.endswith("loss") is (way == "min")
