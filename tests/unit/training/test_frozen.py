"""A frozen backbone's head is what learns, and resumes, averages and compiles as all else does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cifarray.training.checkpoint import load_checkpoint, read_state, write_checkpoint
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, same_weights, weights_of, without_times
from tests.frozen_sessions import Pretrained

FROZEN = {"frozen": True, "dropout": 0.2}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "an average and adamw": {
        "optimizer": {"name": "adamw", "lr": 3e-3, "momentum": None},
        "train": {"epochs": 3, "ema_decay": 0.8, "clip_grad_norm": 1.0},
    },
    "augmentation and bf16": {
        "augment": {"padded_crop": {"padding": 1}},
        "train": {"epochs": 3, "precision": "bf16"},
    },
}


@pytest.fixture(scope="module")
def pretrained(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return Pretrained.on(digits, tmp_path_factory.mktemp("pretrained"))


def finished(trainer: Trainer) -> list[dict[str, Any]]:
    return [without_times(record) for record in trainer.records()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_only_the_head_changes(pretrained: Pretrained, case: dict[str, Any]):
    given = read_state(pretrained.checkpoint)["model"]
    trainer = pretrained.trainer(pretrained.job(model=FROZEN, **case))
    epochs = trainer.records()
    next(epochs)
    first = weights_of(trainer)
    list(epochs)
    for name, tensor in weights_of(trainer).items():
        if name.startswith("backbone."):
            assert torch.equal(tensor, given[name])
        else:
            assert not torch.equal(tensor, first[name])


def test_without_frozen_everything_learns(pretrained: Pretrained):
    given = read_state(pretrained.checkpoint)["model"]
    trainer = pretrained.trainer(pretrained.job())
    finished(trainer)
    changed = trainer.state()["model"]
    same = [name for name in given if torch.equal(changed.get(name, given[name]), given[name])]
    assert not [name for name in same if name.startswith("backbone.")]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_resumed_frozen_training_ends_with_the_weights_of_an_uninterrupted_one(
    pretrained: Pretrained, tmp_path: Path, case: dict[str, Any]
):
    job = pretrained.job(model=FROZEN, **case)
    whole = pretrained.trainer(job)
    expected = finished(whole)
    killed = pretrained.trainer(job)
    record = next(killed.records())
    write_checkpoint(tmp_path, killed.state(), record)
    resumed = pretrained.trainer(job)
    resumed.restore(read_state(tmp_path))
    assert finished(resumed) == expected[1:]
    assert same_weights(weights_of(resumed), weights_of(whole))


def test_the_optimizer_holds_the_heads_weights_alone(pretrained: Pretrained):
    trainer = pretrained.trainer(pretrained.job(model=FROZEN))
    finished(trainer)
    (group,) = trainer.state()["optimizer"]["param_groups"]
    assert len(group["params"]) == 4


def test_a_checkpoint_predicts_what_the_trainer_said(pretrained: Pretrained, tmp_path: Path):
    trainer = pretrained.trainer(pretrained.job(model=FROZEN))
    *_, record = trainer.records()
    write_checkpoint(tmp_path, trainer.state(), record)
    checkpoint = load_checkpoint(tmp_path)
    rows = next(trainer.shard("test").in_order(64))
    with torch.no_grad():
        logits = checkpoint.model(checkpoint.preprocess(rows.images_NCHW))
    said = trainer.evaluate(trainer.state()["model"])
    assert said is not None
    predicted = dict(zip(said["test"].row_ids.tolist(), said["test"].predictions, strict=True))
    assert logits.argmax(1).tolist() == [predicted[row] for row in rows.row_ids_N.tolist()]
