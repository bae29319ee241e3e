"""A trainer is the same each time, goes on where a killed one stopped, and refuses other work."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifarray.data.catalog import DATASETS
from cifarray.data.split import select_rows
from cifarray.errors import CheckpointError, JobError
from cifarray.spec.job import Job
from cifarray.training.checkpoint import read_state, write_checkpoint
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, same_weights, small_job, weights_of, without_times

NETWORKS = '''
import random

import numpy as np
import torch
from torch import nn


class Noisy(nn.Sequential):
    """Draws from Python's, NumPy's and torch's generators while it learns."""

    def forward(self, images_NCHW):
        if self.training:
            noise = random.gauss(1.0, 0.1) + 0.1 * np.random.normal() + 0.1 * torch.rand(1)
            images_NCHW = images_NCHW * noise
        return super().forward(images_NCHW)


def noisy(num_classes, in_channels, image_size):
    pixels = in_channels * image_size[0] * image_size[1]
    return Noisy(nn.Flatten(), nn.Linear(pixels, num_classes))


def normalized(num_classes, in_channels, image_size):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )
'''
AUGMENT = {"horizontal_flip": {"p": 0.3}, "padded_crop": {"padding": 2}}
CASES: dict[str, dict[str, Any]] = {
    "dropout, augmentation and an average under adamw and onecycle": {
        "augment": AUGMENT,
        "optimizer": {"name": "adamw", "lr": 3e-3, "momentum": None},
        "schedule": {"name": "onecycle", "warmup_epochs": 1},
        "train": {"epochs": 4, "ema_decay": 0.8, "label_smoothing": 0.1, "clip_grad_norm": 1.0},
    },
    "momentum and a cosine in bf16 and channels_last": {
        "augment": AUGMENT,
        "optimizer": {"nesterov": True, "weight_decay": 1e-3},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 4, "precision": "bf16", "channels_last": True},
    },
    "BatchNorm and steps that end within an epoch": {
        "model": {"name": "networks_of_test_trainer:normalized"},
        "train": {"epochs": None, "steps": 7, "global_batch_size": 16, "ema_decay": 0.5},
    },
    "Muon in groups, without weight decay of norms, under a cosine": {
        "model": {"name": "networks_of_test_trainer:normalized"},
        "optimizer": {
            "name": "muon",
            "lr": 3e-3,
            "momentum": None,
            "decay_norms": False,
            "groups": [{"pattern": "^0", "lr_scale": 0.5, "weight_decay": 0.3}],
        },
        "schedule": {"name": "cosine"},
        "train": {"epochs": 4},
    },
    "a network that draws from every generator": {
        "model": {"name": "networks_of_test_trainer:noisy"},
        "train": {"epochs": 4},
    },
}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks of the user."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "networks_of_test_trainer.py").write_text(NETWORKS)
    return folder


Open = Callable[..., Trainer]


@pytest.fixture
def open_trainer(digits: Digits, code: Path) -> Open:
    """Opens a trainer as a process that has done other things before would."""

    def open_one(job: Job, **options: Any) -> Trainer:
        torch.rand(random.randrange(1, 9))
        np.random.rand(random.randrange(1, 9))
        return Trainer(job, digits.rows(job, **options), code)

    return open_one


def finish(trainer: Trainer) -> list[dict[str, Any]]:
    return [without_times(record) for record in trainer.records()]


def saved(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """The trainer's state after a way through a checkpoint folder."""
    write_checkpoint(folder, trainer.state(), trainer.history[-1])
    return read_state(folder)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_job_twice_gives_the_same_figures_and_weights(
    open_trainer: Open, case: dict[str, Any]
):
    job = small_job(**case)
    one = open_trainer(job)
    figures = finish(one)
    two = open_trainer(job)
    assert finish(two) == figures
    assert same_weights(weights_of(one), weights_of(two))


@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    open_trainer: Open, tmp_path: Path, case: dict[str, Any], stop_after: int
):
    job = small_job(**case)
    whole = open_trainer(job)
    expected = finish(whole)
    killed = open_trainer(job)
    epochs = killed.records()
    for _ in range(stop_after):
        next(epochs)
    state = saved(killed, tmp_path / "checkpoint")
    resumed = open_trainer(job)
    resumed.restore(state)
    assert finish(resumed) == expected[stop_after:]
    assert [without_times(record) for record in resumed.history] == expected
    ours, theirs = resumed.state(), whole.state()
    assert same_weights(ours["model"], theirs["model"])
    assert ours["averaged"] == theirs["averaged"]
    momenta = [list(state["optimizer"]["state"].values()) for state in (ours, theirs)]
    assert momenta[0]
    for mine, other in zip(*momenta, strict=True):
        assert all(torch.equal(torch.as_tensor(mine[n]), torch.as_tensor(other[n])) for n in mine)


@pytest.mark.parametrize("schedule", [{"name": "cosine"}, {"name": "step", "every_steps": 2}])
def test_a_group_follows_the_schedule_at_its_own_scale(
    open_trainer: Open, schedule: dict[str, Any]
):
    """A power of 2 leaves the bits of the learning rate as they are."""
    given = {
        "nesterov": True,
        "groups": [{"pattern": ".", "lr_scale": 0.5, "weight_decay": 0.01}],
    }
    scaled = open_trainer(small_job(schedule=schedule, optimizer={"lr": 0.1, **given}))
    figures = [finish(scaled)]
    plain = {"lr": 0.05, "nesterov": True, "weight_decay": 0.01}
    halved = open_trainer(small_job(schedule=schedule, optimizer=plain))
    figures.append(finish(halved))
    assert same_weights(weights_of(scaled), weights_of(halved))
    lrs = [[record["lr"] for record in records] for records in figures]
    assert lrs[0] == [2 * lr for lr in lrs[1]], "a record has the job's own"


def test_a_pattern_that_matches_nothing_is_refused_before_any_row_is_read(open_trainer: Open):
    with pytest.raises(JobError, match="pattern 'nowhere' matches no trainable parameter"):
        open_trainer(small_job(optimizer={"groups": [{"pattern": "nowhere"}]}))


def test_muon_learns_the_digits_at_least_as_fast_as_sgd(digits: Digits):
    """In each of 3 seeds; every optimizer at a learning rate that suits it."""
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}
    muon = {"name": "muon", "lr": 5e-3, "momentum": None}
    for seed in range(3):
        reached = []
        for optimizer in (sgd, muon):
            job = small_job(
                dataset={"rows": 800}, optimizer=optimizer, train={"epochs": 3}, seed=seed
            )
            reached.append(finish(digits.trainer(job))[-1]["validation.top1"])
        assert reached[1] >= reached[0] and reached[1] > 0.7, (seed, reached)


def test_training_goes_on_unchanged_beside_its_checkpoints(open_trainer: Open, tmp_path: Path):
    job = small_job(train={"epochs": 3, "ema_decay": 0.9})
    plain = open_trainer(job)
    finish(plain)
    saving = open_trainer(job)
    for record in saving.records():
        saved(saving, tmp_path / str(record["epoch"]))
    assert same_weights(weights_of(plain), weights_of(saving))


def test_a_training_that_had_ended_does_nothing_more(open_trainer: Open, tmp_path: Path):
    job = small_job()
    whole = open_trainer(job)
    finish(whole)
    resumed = open_trainer(job)
    resumed.restore(saved(whole, tmp_path / "checkpoint"))
    assert finish(resumed) == []
    assert same_weights(weights_of(whole), weights_of(resumed))


def test_streaming_resumes_like_a_resident_shard(open_trainer: Open, tmp_path: Path):
    job = small_job()
    whole = open_trainer(job, cache_bytes=0)
    expected = finish(whole)
    killed = open_trainer(job, cache_bytes=0)
    next(killed.records())
    state = saved(killed, tmp_path / "checkpoint")
    resumed = open_trainer(job, cache_bytes=0)
    resumed.restore(state)
    assert finish(resumed) == expected[1:]
    assert same_weights(weights_of(whole), weights_of(resumed))


def test_a_checkpoint_of_more_ranks_goes_on_with_fewer(open_trainer: Open, tmp_path: Path):
    killed = open_trainer(small_job())
    next(killed.records())
    state = saved(killed, tmp_path / "checkpoint")
    state["rng"] *= 2
    resumed = open_trainer(small_job())
    resumed.restore(state)
    assert [record["epoch"] for record in finish(resumed)] == [2]


def test_channels_last_gives_the_same_result(open_trainer: Open):
    weights = []
    for channels_last in (False, True):
        model = {"name": "networks_of_test_trainer:normalized"}
        trainer = open_trainer(small_job(model=model, train={"channels_last": channels_last}))
        finish(trainer)
        weights.append(weights_of(trainer))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-5)


def test_another_seed_gives_other_weights_from_the_start(open_trainer: Open):
    firsts = [next(open_trainer(small_job(seed=seed)).records()) for seed in (0, 1)]
    assert firsts[0]["train.running_loss"] != firsts[1]["train.running_loss"]


def test_checkpoints_of_another_dataset_are_refused(digits: Digits, open_trainer: Open):
    trainer = open_trainer(small_job())
    finish(trainer)
    other = digits.manifest.model_copy(update={"digest": "f" * 64})
    rows = digits.rows(small_job())
    elsewhere = RowSource(other, rows.selection, rows.read, rows.device, rows.cache_bytes)
    with pytest.raises(CheckpointError, match=r"trained on dataset digest \w{12}, not f{12};"):
        Trainer(small_job(), elsewhere).restore(trainer.state())


@pytest.mark.parametrize("section", [{"seed": 1}, {"optimizer": {"lr": 0.06}}])
def test_checkpoints_of_another_job_are_refused(open_trainer: Open, section: dict[str, Any]):
    trainer = open_trainer(small_job())
    finish(trainer)
    with pytest.raises(CheckpointError, match=r"belongs to another job; .* submit a new run"):
        open_trainer(small_job(**section)).restore(trainer.state())


def test_checkpoints_of_other_validation_rows_are_refused(digits: Digits, open_trainer: Open):
    trainer = open_trainer(small_job())
    finish(trainer)
    other = select_rows(
        digits.store, digits.manifest, small_job(validation={"fraction": 0.2, "seed": 4})
    )
    with pytest.raises(CheckpointError, match="belongs to another job"):
        open_trainer(small_job(), selection=other).restore(trainer.state())


def test_sync_batchnorm_is_refused_without_a_gpu(open_trainer: Open):
    trainer = open_trainer(small_job(train={"sync_batchnorm": True}))
    with pytest.raises(JobError, match=r"requires GPU workers.* set it to false"):
        next(trainer.records())


def test_every_split_is_evaluated_whole_once(open_trainer: Open, digits: Digits):
    trainer = open_trainer(small_job())
    finish(trainer)
    predictions = trainer.evaluate(trainer.state()["model"])
    assert predictions is not None
    assert {split: rows.rows for split, rows in predictions.items()} == {
        "train": 64,
        "validation": 16,
        "test": 360,
    }
    selection = select_rows(digits.store, digits.manifest, small_job())
    assert np.array_equal(predictions["validation"].row_ids, selection.validation_row_ids)
    assert np.array_equal(predictions["test"].row_ids, np.arange(360))
    learned = np.concatenate([predictions[split].row_ids for split in ("train", "validation")])
    assert np.array_equal(np.sort(learned), np.arange(80))
    assert trainer.history[-1]["validation.top1"] == predictions["validation"].top1


def test_parameters_are_counted_without_running_statistics(open_trainer: Open):
    trainer = open_trainer(small_job(model={"name": "networks_of_test_trainer:normalized"}))
    finish(trainer)
    state = trainer.state()
    learned = [state["model"][name].numel() for name in state["model"] if "running" not in name]
    counters = sum("num_batches_tracked" in name for name in state["model"])
    assert trainer.parameters == state["parameters"] == sum(learned) - counters


def test_rows_that_fit_the_budget_together_stay_and_others_stream(digits: Digits):
    job = small_job()
    row_bytes = 8 * 8
    fits = digits.rows(job, cache_bytes=80 * row_bytes)
    streams = digits.rows(job, cache_bytes=80 * row_bytes - 1)
    kinds = [type(rows.shard("train")).__name__ for rows in (fits, streams)]
    assert kinds == ["ResidentShard", "StreamedShard"]


def test_the_state_names_the_classes_that_are_learned(open_trainer: Open):
    trainer = open_trainer(small_job())
    finish(trainer)
    state = trainer.state()
    assert state["classes"] == list(DATASETS["digits"].classes)
    assert state["coarse_classes"] == []
    assert state["world_size"] == 1
