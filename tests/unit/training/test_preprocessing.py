"""Whitening is fitted on the rows that are trained on, once, and a checkpoint brings its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifarray.data.shard import rows_from_table
from cifarray.errors import CheckpointError, JobError
from cifarray.spec.job import Job
from cifarray.training.checkpoint import load_checkpoint, read_state, write_checkpoint
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, same_weights, small_job, weights_of, without_times

EPSILON = 0.01
WHITENING = {"preprocess": {"normalize": "whitening", "epsilon": EPSILON}}
MIXED: dict[str, Any] = {
    **WHITENING,
    "augment": {
        "horizontal_flip": {},
        "rotation": {"degrees": 25},
        "zoom": {"fraction": 0.2},
        "fill": "zeros",
        "brightness": {"fraction": 0.2},
        "cutout": {"size": 2},
        "cutmix": {},
    },
    "train": {"epochs": 3, "label_smoothing": 0.1},
}
"""Nearly everything at once."""


def saved(trainer: Trainer, folder: Path) -> dict[str, Any]:
    write_checkpoint(folder, trainer.state(), trainer.history[-1])
    return read_state(folder)


def test_the_matrix_is_numpys_on_the_training_rows_alone(digits: Digits, trained: Any):
    job = small_job(**WHITENING)
    trainer = trained(job)
    rows = digits.rows(job)
    tables = rows.read("train", rows.selection.positions["train"], "label", None)
    images = torch.cat([rows_from_table(table, (8, 8, 1)).images_NCHW for table in tables])
    assert len(images) == 64
    flat = images.flatten(1).double().numpy() / 255
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False, bias=True))
    expected = (vectors / np.sqrt(np.maximum(values, 0) + EPSILON)) @ vectors.T
    found = trainer.state()["preprocess"]["whitening"]
    np.testing.assert_allclose(found["matrix"].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(found["mean"].numpy(), flat.mean(0), atol=1e-6)


def test_streamed_rows_give_the_same_bits(digits: Digits):
    job = small_job(**WHITENING)
    found = []
    for cache_bytes in (1 << 30, 0):
        trainer = digits.trainer(job, digits.rows(job, cache_bytes=cache_bytes))
        next(trainer.records())
        found.append(trainer.state()["preprocess"]["whitening"])
    assert all(torch.equal(found[0][name], found[1][name]) for name in ("mean", "matrix"))


def test_trials_that_share_their_rows_fit_them_once(digits: Digits):
    rows = digits.rows(small_job())
    matrices = []
    for epsilon in (0.01, 0.1):
        job = small_job(preprocess={"normalize": "whitening", "epsilon": epsilon})
        trainer = Trainer(job, rows)
        next(trainer.records())
        matrices.append(trainer.state()["preprocess"]["whitening"]["matrix"])
    assert rows.spectrum() is rows.spectrum()
    assert not torch.allclose(*matrices)


def test_a_resumed_training_takes_the_checkpoints_matrix_and_ends_with_the_same_weights(
    digits: Digits, tmp_path: Path
):
    job = small_job(**MIXED)
    whole = digits.trainer(job)
    expected = [without_times(record) for record in whole.records()]
    killed = digits.trainer(job)
    next(killed.records())
    state = saved(killed, tmp_path / "checkpoint")
    rows = digits.rows(job)
    resumed = digits.trainer(job, rows)
    resumed.restore(state)
    assert [without_times(record) for record in resumed.records()] == expected[1:]
    assert same_weights(weights_of(resumed), weights_of(whole))
    assert rows._spectra == []  # nothing was fitted again


def test_weights_are_judged_with_the_preprocessing_of_their_own_checkpoint(
    digits: Digits, tmp_path: Path, trained: Callable[..., Trainer]
):
    trainer = trained(small_job(**WHITENING))
    state = saved(trainer, tmp_path / "checkpoint")
    expected = trainer.evaluate(state["model"])
    found = digits.trainer(small_job(**WHITENING)).evaluate(state["model"], state["preprocess"])
    assert expected is not None
    assert found is not None
    for split, rows in expected.items():
        assert np.array_equal(found[split].losses, rows.losses)
    state["preprocess"]["whitening"]["matrix"] *= 2
    other = trainer.evaluate(state["model"], state["preprocess"])
    assert other is not None
    assert other["test"].loss != expected["test"].loss


def test_imagenet_numbers_and_three_channels_are_those_of_the_checkpoint(
    tmp_path: Path, trained: Callable[..., Trainer]
):
    trainer = trained(small_job(preprocess={"normalize": "imagenet"}))
    saved(trainer, tmp_path / "checkpoint")
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint.mean == (0.485, 0.456, 0.406)
    assert checkpoint.std == (0.229, 0.224, 0.225)
    assert checkpoint.input_shape == (8, 8, 1)
    first = next(m for m in checkpoint.model.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.in_channels == 3


def test_images_too_large_for_a_matrix_are_refused_before_any_epoch(digits: Digits):
    job = small_job(**WHITENING)
    rows = digits.rows(job)
    huge = digits.manifest.model_copy(update={"shape": (256, 256, 1)})
    elsewhere = RowSource(huge, rows.selection, rows.read, rows.device, rows.cache_bytes)
    with pytest.raises(
        JobError, match="whitening of 256x256x1 images requires a matrix of 65536 x"
    ):
        Trainer(job, elsewhere)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"whitening": None}, "another size"),
        ({"whitening": {"mean": torch.zeros(64)}}, "another size"),
        ({"whitening": {"mean": torch.zeros(64), "matrix": torch.zeros(3, 3)}}, "another size"),
        ({"whitening": {"mean": 1, "matrix": 2}}, "shape"),
        (
            {"whitening": {"mean": torch.zeros(64).long(), "matrix": torch.zeros(64, 64)}},
            "integer values",
        ),
    ],
)
def test_a_checkpoint_whose_whitening_is_none_is_refused(
    change: dict[str, Any], reason: str, tmp_path: Path, trained: Callable[..., Trainer]
):
    trainer = trained(small_job(**WHITENING))
    state = trainer.state()
    state["preprocess"] = state["preprocess"] | change
    write_checkpoint(tmp_path / "checkpoint", state, trainer.history[-1])
    sentence = rf"lacks what preprocess\.normalize whitening needs \(.*{reason}.*\); use another"
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_from_before_there_were_so_many_fields_goes_on(digits: Digits, tmp_path: Path):
    job = small_job()
    trainer = digits.trainer(job)
    next(trainer.records())
    state = saved(trainer, tmp_path / "checkpoint")
    state["job"]["augment"] = {"horizontal_flip": None, "padded_crop": None}
    state["job"]["preprocess"] = {"normalize": "standardize"}
    resumed = digits.trainer(job)
    resumed.restore(state)
    assert Job.model_validate(state["job"]) == job
    assert [record["epoch"] for record in resumed.records()] == [2]
