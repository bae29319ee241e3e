"""One rank's work on a run, without Ray: resume, evaluate every split, leave an outcome."""

import io
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cifarray.digests import content_sha256
from cifarray.errors import CheckpointError, DivergedError, JobError, RunFailedError
from cifarray.models.user_code import pack_code
from cifarray.report.scores import Predictions
from cifarray.runs import read_metrics
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.spec.run import CodeSpec, RunSpec
from cifarray.store import Store
from cifarray.store.layout import EVENTS, Place
from cifarray.training.checkpoint import read_state, write_checkpoint
from cifarray.training.checkpoint_store import stored_checkpoints
from cifarray.training.trainer import Trainer
from cifarray.training.worker import (
    Work,
    fetch_code,
    hardware,
    open_rows,
    open_trainer,
    refuse_divergence,
    resume,
    summary_line,
    train_with_checkpoints,
    write_outcome,
)
from tests.digit_sessions import CPU, Digits, small_job, without_times

PLACE = Place("few-digits-1", 3)
FOLDER = PLACE.prefix


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where a run writes; digits lie elsewhere."""
    return Store.open(str(tmp_path / "store"))


def work_on(store: Store, digits: Digits, **sections: Any) -> Work:
    """What the only worker of a run of the small job is told, with some sections changed."""
    job = small_job(**sections)
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
    return Work(store.spec, spec, PLACE)


@pytest.fixture
def work(store: Store, digits: Digits) -> Work:
    return work_on(store, digits)


def test_a_worker_opens_its_store_by_all_that_names_it(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    spec = StoreSpec(uri="s3://bucket/prefix", endpoint="http://127.0.0.1:9", region="eu-north-1")
    work = work_on(digits.store, digits)
    told = Work(spec, work.run, work.place)
    assert told.open_store().spec == spec
    assert told.open_store() is told.open_store()
    assert pickle.loads(pickle.dumps(told)).open_store().spec == spec


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


def test_a_trainer_goes_on_from_the_newest_whole_checkpoint(
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


def test_a_trainer_without_checkpoints_starts_with_its_first_epoch(
    store: Store, digits: Digits, tmp_path: Path
):
    trainer = digits.trainer()
    resume(trainer, store, FOLDER, tmp_path)
    assert trainer.history == []


def test_opening_a_trainer_sets_the_threads(work: Work, digits: Digits):
    before = torch.get_num_threads()
    try:
        trainer = open_trainer(work, CPU, threads=2, rows=digits.rows(work.job))
        assert torch.get_num_threads() == 2
        assert trainer.job == work.job
    finally:
        torch.set_num_threads(before)


def test_rows_that_are_not_those_recorded_are_refused(digits: Digits, work: Work):
    spec = work.run.model_copy(update={"validation_sha256": "0" * 64})
    other = Work(digits.store.spec, spec, PLACE)
    with pytest.raises(CheckpointError, match=r"validation rows differ .*; submit a new run"):
        open_rows(other, CPU)


def test_the_runs_own_code_is_unpacked_if_its_bytes_are_the_recorded_ones(
    store: Store, work: Work, tmp_path: Path
):
    assert fetch_code(work.run, store) is None
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "net.py").write_text("WIDTH = 3\n")
    packed = pack_code(tmp_path / "code")
    code = CodeSpec(key="runs/few-digits-1/code.zip", sha256=content_sha256(packed))
    spec = work.run.model_copy(update={"code": code})
    store.write(code.key, packed)
    folder = fetch_code(spec, store)
    assert folder is not None
    assert (folder / "net.py").read_text() == "WIDTH = 3\n"
    store.write(code.key, packed + b"x")
    with pytest.raises(JobError, match="was recorded"):
        fetch_code(spec, store)


Told = list[dict[str, Any]]


def train(work: Work, digits: Digits) -> Told:
    """Train as a worker does; what its adapter would be told of."""
    told: Told = []
    train_with_checkpoints(work, digits.trainer(work.job), told.append)
    return told


def kept(work: Work) -> list[int]:
    """The epochs whose checkpoints lie in the folder, oldest first."""
    found = stored_checkpoints(work.open_store(), work.place.prefix)
    return sorted(checkpoint.epoch for checkpoint in found)


def test_the_sink_is_told_of_each_epoch_once_its_checkpoint_and_figures_are_stored(
    work: Work, digits: Digits
):
    told: Told = []

    def sink(record: dict[str, Any]) -> None:
        stored = read_metrics(work.open_store(), work.place.prefix)
        assert record["epoch"] == kept(work)[-1] == stored[-1]["epoch"]
        told.append(record)

    train_with_checkpoints(work, digits.trainer(work.job), sink)
    assert [record["epoch"] for record in told] == [1, 2]
    assert work.open_store().list(work.place.key(EVENTS))


def test_a_loss_that_diverged_is_recorded_and_leaves_no_checkpoint_to_resume_from(
    store: Store, digits: Digits
):
    work, told = work_on(store, digits, optimizer={"lr": 1e30}), list[dict[str, Any]]()
    with pytest.raises(DivergedError, match="diverged in epoch 1"):
        train_with_checkpoints(work, digits.trainer(work.job), told.append)
    (record,) = read_metrics(store, FOLDER)
    assert (record["epoch"], record["train.running_loss"]) == (1, None)  # no number in JSON
    assert (kept(work), told) == ([], [])


def test_a_training_that_had_ended_tells_of_its_last_epoch_and_trains_no_more(
    work: Work, digits: Digits
):
    *_, last = train(work, digits)
    (again,) = train(work, digits)
    assert again == last
    assert len(read_metrics(work.open_store(), FOLDER)) == 2


@pytest.mark.parametrize(
    ("metric", "epochs"), [("validation.top1", [1, 3]), ("validation.loss", [3])]
)
def test_a_trial_keeps_its_best_epoch_by_the_metric_of_the_sweep(
    store: Store, digits: Digits, metric: str, epochs: list[int]
):
    """Its loss falls to the end, while the most images are recognized after the first epoch."""
    sweep = {"space": {"optimizer.lr": {"choice": [0.02]}}, "metric": metric}
    of_run = work_on(store, digits, kind="tune", sweep=sweep, train={"epochs": 3})
    trial = replace(of_run, place=PLACE.of_trial("t1"), params={"optimizer.lr": 0.02})
    train(trial, digits)
    assert kept(trial) == epochs


def test_a_trial_has_the_sweeps_workers_and_the_evaluation_of_the_best_the_runs(
    store: Store, digits: Digits
):
    sweep = {"space": {"optimizer.lr": {"choice": [0.02]}}, "workers_per_trial": 2}
    of_run = work_on(store, digits, kind="tune", sweep=sweep)
    best = replace(of_run, params={"optimizer.lr": 0.02})
    trial = replace(best, place=PLACE.of_trial("t1"))
    assert (trial.world_size, best.world_size) == (2, 1)
    assert of_run.job.kind == "tune"
    assert {work.job.optimizer.lr for work in (best, trial)} == {0.02}
    assert {work.job.kind for work in (best, trial)} == {"train"}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_fails_the_run_and_says_what_to_do(loss: float):
    with pytest.raises(
        RunFailedError, match=r"diverged in epoch 4 at lr 0\.3; lower optimizer\.lr"
    ):
        refuse_divergence({"epoch": 4, "lr": 0.3, "train.running_loss": loss})


def test_a_loss_that_is_a_number_is_let_through():
    refuse_divergence({"epoch": 4, "lr": 0.3, "train.running_loss": 2.0})


def test_an_epoch_in_words_is_one_line_of_its_figures(trainer: Trainer):
    line = summary_line(trainer.history[-1])
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
