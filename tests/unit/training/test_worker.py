"""One rank's work on a run, without Ray: resume, evaluate every split, leave an outcome."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cifarray.errors import CheckpointError, JobError, RunFailedError
from cifarray.models.code import code_sha256, pack_code
from cifarray.reporting.scores import Predictions
from cifarray.spec.profile import Profile
from cifarray.spec.run import CodeSpec, RunSpec
from cifarray.store import Store
from cifarray.store.layout import Place
from cifarray.training.checkpoint import read_state, write_checkpoint
from cifarray.training.trainer import Trainer
from cifarray.training.worker import (
    Work,
    fetch_code,
    hardware,
    in_words,
    open_rows,
    open_trainer,
    refuse_divergence,
    resume,
    write_outcome,
)
from tests.digit_sessions import CPU, Digits, small_job, without_times

PLACE = Place("few-digits-1", 3)
FOLDER = PLACE.prefix


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where a run writes; digits lie elsewhere."""
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def work(store: Store, digits: Digits) -> Work:
    job = small_job()
    spec = RunSpec(
        run_id="few-digits-1",
        job=job,
        profile=Profile(name="local", kind="local"),
        world_size=1,
        dataset_digest=digits.manifest.digest,
        validation_rows=16,
        validation_sha256=digits.rows(job).selection.validation_sha256,
        submitted_at="2026-11-23T10:00:00+00:00",
        versions={},
    )
    return Work(store.spec, spec, job, PLACE, world_size=1)


@pytest.fixture
def trainer(trained: Callable[..., Trainer]) -> Trainer:
    return trained()


def put_checkpoint(store: Store, trainer: Trainer, name: str, scratch: Path) -> str:
    """The trainer's checkpoint in the store."""
    write_checkpoint(scratch / name, trainer.state(), trainer.history[-1])
    for path in (scratch / name).iterdir():
        store.upload(path, f"{FOLDER}/checkpoints/ray/{name}/{path.name}")
    return f"{FOLDER}/checkpoints/ray/{name}"


def test_an_outcome_says_what_was_evaluated_and_on_what(
    work: Work, store: Store, trainer: Trainer, tmp_path: Path
):
    key = put_checkpoint(store, trainer, "one", tmp_path)
    history = [without_times(record) for record in trainer.history]
    write_outcome(work, trainer, key, tmp_path / "scratch")
    outcome = store.read_json(f"{FOLDER}/outcome.json")
    assert [without_times(record) for record in outcome.pop("history")] == history
    layers = outcome.pop("layers")
    assert sum(layer["parameters"] for layer in layers) == trainer.parameters
    assert layers[-1]["output_shape"] == [10]
    assert outcome == {
        "input_shape": [8, 8, 1],
        "checkpoint": key,
        "epoch": 2,
        "parameters": trainer.parameters,
        "world_size": 1,
        "threads": 1,
        "hardware": hardware(),
    }


def test_predictions_of_every_split_lie_beside_the_outcome(
    work: Work, store: Store, trainer: Trainer, tmp_path: Path
):
    key = put_checkpoint(store, trainer, "one", tmp_path)
    expected = trainer.evaluate(trainer.state()["model"])
    assert expected is not None
    write_outcome(work, trainer, key, tmp_path / "scratch")
    for split, rows in expected.items():
        content = store.read(f"{FOLDER}/evaluation/{split}.parquet")
        found = Predictions.from_table(pq.read_table(io.BytesIO(content)))
        assert np.array_equal(found.row_ids, rows.row_ids)
        assert np.array_equal(found.predictions, rows.predictions)
        assert (found.top1, found.loss) == (rows.top1, rows.loss)


def test_a_damaged_checkpoint_gives_no_outcome(
    work: Work, store: Store, trainer: Trainer, tmp_path: Path
):
    key = put_checkpoint(store, trainer, "one", tmp_path)
    store.write(f"{key}/state.pt", b"damaged")
    with pytest.raises(CheckpointError):
        write_outcome(work, trainer, key, tmp_path / "scratch")
    assert not store.exists(f"{FOLDER}/outcome.json")


def test_a_session_goes_on_from_the_newest_whole_checkpoint(
    store: Store, digits: Digits, tmp_path: Path
):
    job = small_job(train={"epochs": 3})
    whole = digits.trainer(job)
    for record in whole.records():
        put_checkpoint(store, whole, f"epoch_{record['epoch']}", tmp_path)
    store.write(f"{FOLDER}/checkpoints/ray/epoch_3/state.pt", b"damaged")
    resumed = digits.trainer(job)
    resume(resumed, store, FOLDER, tmp_path / "scratch")
    assert [record["epoch"] for record in resumed.history] == [1, 2]


def test_a_session_without_checkpoints_begins_at_its_beginning(
    store: Store, digits: Digits, tmp_path: Path
):
    trainer = digits.trainer()
    resume(trainer, store, FOLDER, tmp_path)
    assert trainer.history == []


def test_opening_a_session_sets_the_threads(work: Work, digits: Digits):
    before = torch.get_num_threads()
    try:
        trainer = open_trainer(work, CPU, threads=2, rows=digits.rows(work.job))
        assert torch.get_num_threads() == 2
        assert trainer.job == work.job
    finally:
        torch.set_num_threads(before)


def test_rows_that_are_not_those_recorded_are_refused(digits: Digits, work: Work):
    spec = work.run.model_copy(update={"validation_sha256": "0" * 64})
    other = Work(digits.store.spec, spec, work.job, PLACE, 1)
    with pytest.raises(CheckpointError, match=r"validation rows differ .*; submit a new run"):
        open_rows(other, CPU)


def test_the_runs_own_code_is_unpacked_if_its_bytes_are_the_recorded_ones(
    store: Store, work: Work, tmp_path: Path
):
    assert fetch_code(work.run, store) is None
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "net.py").write_text("WIDTH = 3\n")
    packed = pack_code(tmp_path / "code")
    code = CodeSpec(key="runs/few-digits-1/code.zip", sha256=code_sha256(packed))
    spec = work.run.model_copy(update={"code": code})
    store.write(code.key, packed)
    folder = fetch_code(spec, store)
    assert folder is not None
    assert (folder / "net.py").read_text() == "WIDTH = 3\n"
    store.write(code.key, packed + b"x")
    with pytest.raises(JobError, match="was recorded"):
        fetch_code(spec, store)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_fails_the_run_and_says_what_to_do(loss: float):
    with pytest.raises(
        RunFailedError, match=r"diverged in epoch 4 at lr 0\.3; lower optimizer\.lr"
    ):
        refuse_divergence([{"epoch": 4, "lr": 0.3, "train.running_loss": loss}])


def test_a_loss_that_is_a_number_is_let_through():
    refuse_divergence([{"epoch": 4, "lr": 0.3, "train.running_loss": 2.0}])


def test_an_epoch_in_words_is_one_line_of_its_figures(trainer: Trainer):
    line = in_words(trainer.history[-1])
    assert "\n" not in line
    assert f"validation.top1 {trainer.history[-1]['validation.top1']:.4g}" in line


def test_the_state_of_a_checkpoint_in_the_store_is_that_which_was_saved(
    store: Store, trainer: Trainer, tmp_path: Path
):
    key = put_checkpoint(store, trainer, "one", tmp_path)
    for name in ("state.pt", "checkpoint.json"):
        store.download(f"{key}/{name}", tmp_path / "copy" / name)
    state = read_state(tmp_path / "copy")
    assert all(torch.equal(state["model"][n], w) for n, w in trainer.state()["model"].items())
