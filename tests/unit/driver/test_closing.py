"""A run ends with its own checkpoint named and a report whose figures scikit-learn confirms."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score

from cifarray.data.ingest import prepare
from cifarray.driver.attempt import close_with_report, publish, report_dataset
from cifarray.errors import LeaseLostError
from cifarray.runs import Attempt, Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.store import Store
from cifarray.training.checkpoint import load_checkpoint, write_checkpoint
from cifarray.training.checkpoint_store import StoredCheckpoint, fetch
from cifarray.training.ray_tune import SweepResult
from cifarray.training.trials import TrialRecord, trial_job
from cifarray.training.worker import Work, write_outcome
from tests.archives import write_cifar100
from tests.digit_sessions import Digits, small_job


def carried_out(run: Run, digits: Digits, scratch: Path, folder: str = "") -> Attempt:
    """What the workers of an attempt leave, made in this process."""
    spec, store = run.spec(), run.store
    attempt = run.start_attempt("a test")
    job = spec.job if spec.job.sweep is None else trial_job(spec.job, {"optimizer.lr": 0.02})
    session = digits.trainer(job)
    *_, record = session.records()
    write_metrics(store, f"{attempt.prefix}{folder}", session.history)
    write_checkpoint(scratch / "checkpoint", session.state(), record)
    key = f"{attempt.prefix}{folder}/checkpoints/ray/epoch_{record['epoch']:06d}_ab12"
    for path in (scratch / "checkpoint").iterdir():
        store.upload(path, f"{key}/{path.name}")
    work = Work(store.spec, spec, attempt.place)
    write_outcome(work, session, key, scratch / "outcome")
    return attempt


@pytest.fixture
def closed(run: Run, digits: Digits, tmp_path: Path) -> Run:
    attempt = carried_out(run, digits, tmp_path)
    close_with_report(run, attempt, None)
    attempt.close("finished")
    publish(run, attempt)
    return run


def test_a_report_counts_from_the_moment_in_which_its_run_has_finished(
    run: Run, digits: Digits, tmp_path: Path
):
    attempt = carried_out(run, digits, tmp_path)
    close_with_report(run, attempt, None)
    assert not run.has_report()
    attempt.close("finished")
    before = run.report()
    publish(run, attempt)
    assert run.report() == before
    assert run.report_prefix() == run.key("report")


def test_an_attempt_that_wakes_up_late_leaves_the_report_of_its_successor_alone(
    run: Run, digits: Digits, tmp_path: Path
):
    late = carried_out(run, digits, tmp_path / "late")
    attempt = carried_out(run, digits, tmp_path / "in-charge")
    close_with_report(run, attempt, None)
    attempt.close("finished")
    publish(run, attempt)
    report, files = run.report(), run.store.read(run.key("report", "files.json"))
    close_with_report(run, late, None)
    with pytest.raises(LeaseLostError):
        late.close("finished")
    assert run.report() == report
    assert run.store.read(run.key("report", "files.json")) == files
    assert run.store.read_json(run.key("best.json"))["checkpoint"].startswith("attempts/2/")


def test_a_training_ends_with_its_checkpoint_and_its_report(closed: Run, tmp_path: Path):
    best = closed.store.read_json(closed.key("best.json"))
    assert best == {
        "checkpoint": "attempts/1/checkpoints/ray/epoch_000002_ab12",
        "epoch": 2,
        "trial_id": None,
    }
    checkpoint = load_checkpoint(
        fetch(closed.store, closed.key(best["checkpoint"]), tmp_path / "c")
    )
    assert checkpoint.epoch == 2
    assert closed.has_report()
    assert closed.status().state == "finished"


def test_the_reports_figures_are_those_of_its_predictions(closed: Run):
    report = closed.report()
    table = pq.read_table(io.BytesIO(closed.store.read(closed.key("report/predictions.parquet"))))
    labels, predictions = (table[name].to_pylist() for name in ("label", "prediction"))
    assert report["test"]["rows"] == len(labels) == 360
    assert report["test"]["top1"] == accuracy_score(labels, predictions)
    text = closed.store.read(closed.key("report/confusion.csv")).decode()
    header, *rows = csv.reader(io.StringIO(text))
    counts = [[int(count) for count in row[-10:]] for row in rows]
    assert len(header) >= len(counts) == 10
    assert sum(map(sum, counts)) == 360
    assert sum(counts[label][label] for label in range(10)) / 360 == report["test"]["top1"]


def test_the_report_says_what_ran(closed: Run, digits: Digits):
    report: dict[str, Any] = closed.report()
    assert report["run_id"] == closed.id
    assert report["dataset"]["name"] == "digits"
    assert report["dataset"]["digest"] == digits.manifest.digest
    assert report["model"]["name"] == "cnn3"
    assert report["world_size"] == 1  # what trained it: this process
    assert report["validation"]["top1"] == closed.metrics()[-1]["validation.top1"]
    assert report["duration_s"] > 0


def test_a_sweep_ends_with_its_best_trials_checkpoint(
    sweep_run: Run, digits: Digits, tmp_path: Path
):
    attempt = carried_out(sweep_run, digits, tmp_path, folder="/trials/t1")
    outcome = sweep_run.store.read_json(f"{attempt.prefix}/outcome.json")
    best = TrialRecord("t1", {"optimizer.lr": 0.02}, outcome["history"], "finished")
    other = replace(best, id="t0", history=best.history[:1], state="stopped early")
    found = StoredCheckpoint(outcome["checkpoint"], outcome["epoch"], {})
    close_with_report(sweep_run, attempt, SweepResult([other, best], best, found))
    attempt.close("finished")
    publish(sweep_run, attempt)
    named = sweep_run.store.read_json(sweep_run.key("best.json"))
    assert named["trial_id"] == "t1"
    assert named["checkpoint"].startswith("attempts/1/trials/t1/checkpoints/")
    report = sweep_run.report()
    assert report["best_trial_id"] == "t1"
    assert [(t["id"], t["epochs"], t["state"]) for t in report["trials"]] == [
        ("t0", 1, "stopped early"),
        ("t1", 3, "finished"),
    ]
    assert report["validation"]["top1"] == outcome["history"][-1]["validation.top1"]


def test_a_report_on_coarse_labels_names_the_superclasses_as_classes(tmp_path: Path):
    archive = write_cifar100(tmp_path / "cifar100.tar.gz", 1, 1)
    manifest, _ = prepare(Store.open(str(tmp_path / "store")), "cifar100", str(archive))
    fine = report_dataset(manifest, small_job())
    assert (len(fine.classes), len(fine.coarse_classes), len(fine.fine_to_coarse)) == (100, 20, 100)
    coarse = report_dataset(manifest, small_job(dataset={"name": "cifar100", "labels": "coarse"}))
    assert coarse.classes == fine.coarse_classes
    assert (tuple(coarse.coarse_classes), tuple(coarse.fine_to_coarse)) == ((), ())


def test_a_report_names_what_the_dataset_left_out_of_its_source(tmp_path: Path):
    archive = write_cifar100(tmp_path / "cifar100.tar.gz", 1, 1)
    manifest, _ = prepare(Store.open(str(tmp_path / "store")), "cifar100", str(archive))
    rows = report_dataset(manifest, small_job()).left_out
    assert rows is not None
    assert [(row["kind"], row["reason"], row["split"], row["count"]) for row in rows] == [
        ("column", f"column left out: {column}", split, 1)
        for column in ("batch_label", "filenames")
        for split in ("test", "train")
    ]
    older = manifest.model_copy(update={"left_out": None})
    assert report_dataset(older, small_job()).left_out is None


def test_a_report_on_some_classes_names_these_and_their_superclasses_alone(tmp_path: Path):
    archive = write_cifar100(tmp_path / "cifar100.tar.gz", 1, 1)
    manifest, _ = prepare(Store.open(str(tmp_path / "store")), "cifar100", str(archive))
    names = ["whale", "apple", "beaver"]
    some = report_dataset(manifest, small_job(dataset={"name": "cifar100", "classes": names}))
    assert some.classes == ("whale", "apple", "beaver")
    assert [some.superclass(label) for label in range(3)] == [
        "aquatic_mammals",
        "fruit_and_vegetables",
        "aquatic_mammals",
    ]
    assert len(some.coarse_classes) == 2
    first = report_dataset(manifest, small_job(dataset={"name": "cifar100", "classes": 25}))
    assert first.classes == manifest.classes[:25]
