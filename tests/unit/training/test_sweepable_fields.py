"""Every field that a sweep may vary changes what a training comes to."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cifarray.backends import checks as preflight
from cifarray.backends.checks import NOT_SWEEPABLE
from cifarray.errors import JobError
from cifarray.models.registry import build_model
from cifarray.spec.job import Job, ModelSpec
from cifarray.spec.load import fields_of, load_profile, with_fields
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, small_job, without_times

NETWORK = """
from torch import nn


def dense(num_classes, in_channels, image_size, width=4):
    pixels = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Linear(width, num_classes))
"""
PLAIN = {"name": "sgd", "momentum": None}
ADAM = {"name": "adam", "lr": 1e-3, "momentum": None}
RMSPROP = {"name": "rmsprop", "lr": 1e-3}
STEPWISE = {"name": "step", "every_epochs": 1.0}
SLOW = {"model": {"dropouts": [0.0, 0.0, 0.0]}, "optimizer": {"lr": 1e-4}}
NEVER_BETTER = {"patience_epochs": 1, "metric": "validation.top1", "min_delta": 0.9}
TINY = "timm/test_resnet"
OWN = {"name": "network_of_test_sweepable_fields:dense", "args": {"width": 4}}

VALUES: dict[str, tuple[Any, dict[str, Any]]] = {
    "preprocess.normalize": ("unit", {}),
    "preprocess.epsilon": (0.1, {"preprocess": {"normalize": "whitening", "epsilon": 0.01}}),
    "preprocess.resize": (12, {}),
    "augment.horizontal_flip.p": (0.5, {}),
    "augment.vertical_flip.p": (0.5, {}),
    "augment.padded_crop.padding": (1, {}),
    "augment.rotation.degrees": (20.0, {}),
    "augment.shift.fraction": (0.2, {}),
    "augment.zoom.fraction": (0.2, {}),
    "augment.fill": ("zeros", {"augment": {"zoom": {"fraction": 0.3}}}),
    "augment.brightness.fraction": (0.2, {}),
    "augment.cutout.size": (3, {}),
    "augment.mixup.alpha": (0.5, {}),
    "augment.cutmix.alpha": (0.5, {}),
    "model.name": (OWN["name"], {}),
    "model.dropout": (0.9, {}),
    "model.dropouts": ([0.0, 0.0, 0.0], {}),
    "model.args": ({"width": 9}, {"model": OWN}),
    "model.head": (6, {"model": {"name": TINY}}),
    "model.frozen": (True, {"model": {"name": TINY, "weights": "given"}}),
    "optimizer.name": ("adamw", {"optimizer": PLAIN}),
    "optimizer.lr": (0.01, {}),
    "optimizer.weight_decay": (0.1, {}),
    "optimizer.momentum": (0.5, {}),
    "optimizer.nesterov": (True, {}),
    "optimizer.beta1": (0.5, {"optimizer": ADAM}),
    "optimizer.beta2": (0.5, {"optimizer": ADAM}),
    "optimizer.alpha": (0.5, {"optimizer": RMSPROP}),
    "optimizer.eps": (0.1, {"optimizer": ADAM}),
    "optimizer.decay_norms": (False, {"optimizer": {"weight_decay": 0.1}}),
    "optimizer.groups": ([{"pattern": "bias", "lr_scale": 0.5}], {}),
    "schedule.name": ("cosine", {}),
    "schedule.warmup_epochs": (1.0, {}),
    "schedule.warmup_steps": (3, {}),
    "schedule.every_epochs": (0.5, {"schedule": STEPWISE}),
    "schedule.every_steps": (1, {"schedule": {"name": "step", "every_steps": 2}}),
    "schedule.gamma": (0.5, {"schedule": STEPWISE}),
    "schedule.final_fraction": (0.5, {"schedule": {"name": "cosine"}}),
    "schedule.decay": (0.5, {"schedule": {"name": "inverse_time", "decay": 0.05}}),
    "train.epochs": (3, {}),
    "train.steps": (3, {}),
    "train.global_batch_size": (16, {}),
    "train.precision": ("bf16", {}),
    "train.label_smoothing": (0.1, {}),
    "train.clip_grad_norm": (1e-3, {}),
    "train.ema_decay": (0.5, {}),
    "train.early_stopping.patience_epochs": (
        2,
        {"train": {"epochs": 4, "early_stopping": NEVER_BETTER}},
    ),
    "train.early_stopping.metric": (
        "train.running_loss",
        {**SLOW, "train": {"epochs": 4, "early_stopping": {**NEVER_BETTER, "min_delta": 0.0}}},
    ),
    "train.early_stopping.min_delta": (
        0.0,
        {
            **SLOW,
            "train": {
                "epochs": 4,
                "early_stopping": {**NEVER_BETTER, "metric": "train.running_loss"},
            },
        },
    ),
    "seed": (1, {}),
}
"""Field -> another value, and sections of the small job in which it is read."""

REFUSED_ON_CPUS = {"train.sync_batchnorm"}


def is_sweepable(path: str) -> bool:
    return not any(path == prefix or path.startswith(f"{prefix}.") for prefix in NOT_SWEEPABLE)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "network_of_test_sweepable_fields.py").write_text(NETWORK)
    return folder


@pytest.fixture(scope="module")
def rows(digits: Digits) -> RowSource:
    """One reading serves all: none of these fields changes which rows there are."""
    return digits.rows(small_job())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a backbone begins with where its job names weights."""
    path = tmp_path_factory.mktemp("weights") / "weights"
    torch.save(build_model(ModelSpec(name=TINY), 10, (8, 8, 1)).state_dict(), path)
    return path


Outcome = tuple[list[dict[str, Any]], dict[str, torch.Tensor]]


def outcome(job: Job, rows: RowSource, code: Path, weights: Path) -> Outcome:
    """Figures and weights of a training."""
    trainer = Trainer(job, rows, code, weights)
    records = [without_times(record) for record in trainer.records()]
    return records, trainer.state()["model"]


def differ(one: Outcome, two: Outcome) -> bool:
    (records, weights), (other_records, other_weights) = one, two
    same = weights.keys() == other_weights.keys() and all(
        torch.equal(weights[name], other_weights[name]) for name in weights
    )
    return records != other_records or not same


def test_every_sweepable_field_has_a_value_here():
    sweepable = {path for path in fields_of(Job) if is_sweepable(path)}
    assert sweepable == VALUES.keys() | REFUSED_ON_CPUS


@pytest.mark.parametrize("path", VALUES)
def test_a_sweepable_field_changes_the_result(
    path: str, rows: RowSource, code: Path, weights: Path
):
    value, sections = VALUES[path]
    job = small_job(**sections)
    other = with_fields(job, {path: value})
    assert differ(outcome(job, rows, code, weights), outcome(other, rows, code, weights))


def test_the_same_job_does_not_differ_from_itself(rows: RowSource, code: Path, weights: Path):
    one, two = (outcome(small_job(), rows, code, weights) for _ in range(2))
    assert not differ(one, two)


@pytest.mark.parametrize("path", VALUES)
def test_a_sweep_over_a_sweepable_field_passes_the_checks(path: str, code: Path):
    value, sections = VALUES[path]
    sweep = {"space": {path: {"choice": [value]}}, "metric": "validation.loss"}
    job = small_job(**sections, kind="tune", sweep=sweep)
    own = OWN["name"] in (value, job.model.name)
    preflight.check(job, load_profile("local"), code=code if own else None)


@pytest.mark.parametrize("path", sorted(REFUSED_ON_CPUS))
def test_a_field_that_needs_gpus_is_refused_rather_than_ignored(path: str, rows: RowSource):
    job = with_fields(small_job(), {path: True})
    with pytest.raises(JobError, match="requires GPU workers"):
        next(Trainer(job, rows).records())
    with pytest.raises(JobError, match="requires GPU workers"):
        preflight.check(job, load_profile("local"))
