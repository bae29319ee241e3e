"""A checkpoint is enough by itself, and anything that is not one is refused in one sentence."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifarray.data.catalog import DATASETS
from cifarray.errors import CheckpointError
from cifarray.training.checkpoint import (
    STATE_KEYS,
    check_folder,
    load_checkpoint,
    read_state,
    restore_rng,
    rng_state,
    seed_rng,
    write_checkpoint,
)
from cifarray.training.evaluation import predict_shard
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, small_job


@pytest.fixture(scope="module")
def written(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    """A checkpoint with an average of the weights, and the trainer that wrote it."""
    trainer = digits.trainer(small_job(train={"ema_decay": 0.5}))
    *_, record = trainer.records()
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, trainer.state(), record)
    return folder, trainer


@pytest.fixture
def trainer(written: tuple[Path, Trainer]) -> Trainer:
    return written[1]


@pytest.fixture
def folder(written: tuple[Path, Trainer], tmp_path: Path) -> Path:
    """A whole checkpoint to spoil."""
    return shutil.copytree(written[0], tmp_path / "checkpoint")


def put_state(folder: Path, state: Any) -> None:
    """Another state.pt, and a checkpoint.json that proves it."""
    torch.save(state, folder / "state.pt")
    content = (folder / "state.pt").read_bytes()
    proof = json.loads((folder / "checkpoint.json").read_text())
    proof["files"]["state.pt"] = {
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "checkpoint.json").write_text(json.dumps(proof))


def refused(folder: Path, match: str) -> None:
    """Reading the folder fails in one sentence."""
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_checkpoint_json_says_epoch_step_metrics_and_what_the_file_is(
    folder: Path, trainer: Trainer
):
    proof = json.loads((folder / "checkpoint.json").read_text())
    content = (folder / "state.pt").read_bytes()
    assert proof == {
        "schema_version": 1,
        "epoch": 2,
        "step": 4,
        "metrics": trainer.history[-1],
        "files": {
            "state.pt": {
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        },
    }
    assert check_folder(folder) == proof


def test_a_state_holds_everything_that_is_expected_of_one(folder: Path):
    assert read_state(folder).keys() == STATE_KEYS | {"schema_version"}


def test_a_state_is_read_by_torchs_safe_loader(folder: Path):
    state = torch.load(folder / "state.pt", weights_only=True)
    (rng,) = state["rng"]
    assert isinstance(rng["torch"], torch.Tensor)
    assert {type(key) for key in rng["python"] + rng["numpy"][1]} == {int}


def test_a_checkpoint_predicts_with_nothing_else_at_hand(
    folder: Path, trainer: Trainer, digits: Digits, tmp_path: Path
):
    predictions = trainer.evaluate(read_state(folder)["model"])
    assert predictions is not None
    alone = shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    checkpoint = load_checkpoint(alone)
    shard = digits.rows(small_job()).shard("test")
    found = predict_shard(checkpoint.model, shard, checkpoint.preprocess)
    assert np.array_equal(found.predictions, predictions["test"].predictions)
    np.testing.assert_allclose(found.losses, predictions["test"].losses, rtol=1e-6)


def test_a_checkpoint_says_what_it_predicts_and_from_what(
    folder: Path, trainer: Trainer, digits: Digits
):
    checkpoint = load_checkpoint(folder)
    manifest = digits.manifest
    assert not checkpoint.model.training
    assert checkpoint.classes == DATASETS["digits"].classes
    assert checkpoint.coarse_classes == ()
    assert checkpoint.fine_to_coarse == ()
    assert checkpoint.input_shape == (8, 8, 1)
    assert (checkpoint.mean, checkpoint.std) == (manifest.mean, manifest.std)
    assert (checkpoint.epoch, checkpoint.step) == (2, 4)
    assert checkpoint.metrics == trainer.history[-1]
    assert checkpoint.dataset == {
        "name": "digits",
        "labels": "fine",
        "classes": None,
        "archive_part": None,
        "rows": 80,
        "digest": manifest.digest,
    }
    assert checkpoint.job == trainer.job


def test_the_weights_of_a_checkpoint_are_the_averaged_ones(folder: Path):
    state = read_state(folder)
    assert not torch.equal(*(state[name]["classifier.1.weight"] for name in ("model", "raw_model")))
    loaded = load_checkpoint(folder).model.state_dict()
    assert all(torch.equal(loaded[name], state["model"][name]) for name in loaded)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_flipped_byte_is_refused(folder: Path, place: int):
    content = bytearray((folder / "state.pt").read_bytes())
    content[place] ^= 1
    (folder / "state.pt").write_bytes(content)
    refused(folder, r"is damaged: state\.pt differs from checkpoint\.json; use another")


def test_a_state_that_was_cut_short_is_refused(folder: Path):
    os.truncate(folder / "state.pt", 5000)
    refused(folder, r"is damaged: state\.pt")


@pytest.mark.parametrize("name", ["state.pt", "checkpoint.json"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    refused(folder, rf"is not a checkpoint: {name} is missing")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    refused(tmp_path / "nowhere", r"nowhere is not a checkpoint: checkpoint\.json is missing")


@pytest.mark.parametrize(
    "proof",
    ["{", "[]", "null", "{}", '{"files": 3}', '{"files": {"state.pt/..": 1}}', "\x00", '"\\ud800"'],
)
def test_a_proof_that_is_none_is_refused(folder: Path, proof: str):
    (folder / "checkpoint.json").write_text(proof)
    refused(folder, r"checkpoint")


def test_a_proof_that_leaves_the_state_out_proves_nothing(folder: Path):
    (folder / "checkpoint.json").write_text('{"files": {}}')
    refused(folder, r"state\.pt differs from checkpoint\.json")


def test_a_proof_cannot_name_files_elsewhere(folder: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    fingerprint = {"size_bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    proof = json.loads((folder / "checkpoint.json").read_text())
    proof["files"]["../secret"] = fingerprint
    (folder / "checkpoint.json").write_text(json.dumps(proof))
    refused(folder, "secret is missing")


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_and_runs_none(folder: Path, tmp_path: Path):
    exploded = tmp_path / "exploded"
    put_state(folder, {"schema_version": 1, "model": Bomb(exploded)})
    refused(
        folder,
        r"state\.pt is not a checkpoint of cifarray: it names posix\.mkdir, which is not a tensor",
    )
    assert not exploded.exists()
    torch.load(folder / "state.pt", weights_only=False)
    assert exploded.exists()  # it was a live one


def test_bytes_that_are_no_pickle_are_refused(folder: Path):
    put_state(folder, {})
    content = b"not a state at all"
    (folder / "state.pt").write_bytes(content)
    proof = json.loads((folder / "checkpoint.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    proof["files"]["state.pt"] = {"size_bytes": len(content), "sha256": digest}
    (folder / "checkpoint.json").write_text(json.dumps(proof))
    refused(folder, r"is not a checkpoint of cifarray")


@pytest.mark.parametrize("state", [[1, 2], {"weights": 1}, {"schema_version": 2}])
def test_a_state_of_another_kind_is_refused(folder: Path, state: Any):
    put_state(folder, state)
    refused(folder, "does not have schema version 1; it was written by another version of cifarray")


def test_a_state_that_lacks_something_is_refused(folder: Path):
    state = read_state(folder)
    del state["job"], state["classes"]
    put_state(folder, state)
    refused(folder, "lacks classes, job; use another checkpoint")


def test_a_job_that_this_version_does_not_know_is_refused(folder: Path):
    state = read_state(folder)
    state["job"]["train"]["gradient_surgery"] = True
    put_state(folder, state)
    refused(
        folder, r"a job whose train\.gradient_surgery this version of cifarray does not support"
    )


def test_weights_of_another_network_are_refused(folder: Path):
    state = read_state(folder)
    state["job"]["model"]["name"] = "resnet18"
    put_state(folder, state)
    refused(folder, "does not fit network resnet18: ")


def test_weights_that_are_none_are_refused(folder: Path):
    put_state(folder, read_state(folder) | {"model": 3})
    refused(folder, "is not a checkpoint of cifarray: model: input should be a valid dictionary")


def draws() -> list[float]:
    return [float(torch.rand(1)), random.random(), random.gauss(0, 1), np.random.normal()]


def test_random_generators_go_on_where_they_were_saved():
    random.gauss(0, 1)
    np.random.normal()  # both keep a second number back
    state = rng_state()
    expected = [draws() for _ in range(3)]
    draws()
    restore_rng(state)
    assert [draws() for _ in range(3)] == expected


def test_a_seed_sets_every_generator():
    seed_rng(2**62 + 5)
    first = draws()
    seed_rng(2**62 + 5)
    assert draws() == first
    seed_rng(6)
    assert all(a != b for a, b in zip(draws(), first, strict=True))
