"""CIFAR-100 end to end on an S3 server: archive, Parquet, sweep, two DDP workers, pull, report."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cifarray.report.formats import percent
from cifarray.runs import Run, check_index
from cifarray.store import Store
from cifarray.training.checkpoint import check_folder, load_checkpoint
from tests.archives import write_cifar100
from tests.integration.command_line import CIFARRAY, CommandLine
from tests.s3 import S3Server

SCRIPT = Path(__file__).with_name("cifar100.sh")
SUBSET = "cifar-100-python.subset.tar.gz"
FEWER = ("--set", "dataset.rows=3000")
"""Half of the subset's 6,000, for the sake of time."""
DIGITS = ("--set", "train.global_batch_size=64")
"""The archive that is made of digits has too few rows for the job's own batches."""


@dataclass(frozen=True)
class Tuned:
    """What cifar100.sh did."""

    cifarray: CommandLine
    server: S3Server
    train_rows: int
    test_rows: int
    pulled: Path
    printed: str

    @property
    def run(self) -> Run:
        """The sweep."""
        (run_id,) = self.cifarray.store.folders("runs")[:1]
        return Run(self.cifarray.store, run_id)

    @property
    def report(self) -> dict[str, Any]:
        """The sweep's report as the command line gives it."""
        content: dict[str, Any] = self.cifarray.json("report", "tune-cifar100")
        return content


def write_digits(folder: Path) -> Path:
    """An archive of CIFAR-100's layout with 400 rows to train on and 200 to test."""
    return write_cifar100(folder / "digits.tar.gz", rows_per_class=4, test_rows_per_class=2)


@pytest.fixture(scope="module")
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The subset of real images, or digits in its place where it is not there."""
    try:
        folder: Path = request.getfixturevalue("test_data")
    except pytest.skip.Exception:
        return write_digits(tmp_path_factory.mktemp("archive"))
    return folder / SUBSET


@pytest.fixture(scope="module", params=["any", pytest.param("digits", marks=pytest.mark.slow)])
def tuned(
    request: pytest.FixtureRequest,
    cifarray: CommandLine,
    s3_server: S3Server,
    archive: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Tuned:
    """The script's work: on real images if there are any, and on digits."""
    folder = tmp_path_factory.mktemp("cifar100")
    if request.param == "digits":
        archive = write_digits(folder)
    real = archive.name == SUBSET
    train_rows, test_rows, options = (3000, 1500, FEWER) if real else (400, 200, DIGITS)
    store = f"s3://{s3_server.new_bucket()}/cifarray"
    typed = cifarray.with_environment(**s3_server.environment, CIFARRAY_STORE=store)
    path = f"{CIFARRAY.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [SCRIPT, archive, store, folder / "pulled", *options],
        env={**os.environ, **typed.environment, "PATH": path},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Tuned(typed, s3_server, train_rows, test_rows, folder / "pulled", done.stdout)


def test_the_script_prints_the_report(tuned: Tuned) -> None:
    report = tuned.report
    assert f"run         {report['run_id']}" in tuned.printed
    assert "trials      4: " in tuned.printed
    assert f"test        top-1 {percent(report['test']['top1'])}" in tuned.printed


def test_the_report_has_every_promised_field(tuned: Tuned) -> None:
    report = tuned.report
    assert report["schema_version"] == 1
    assert report["run_id"] == tuned.run.id
    assert (report["job"], report["kind"]) == ("tune-cifar100", "tune")
    assert report["dataset"]["name"] == "cifar100"
    assert report["dataset"]["digest"] == tuned.run.spec().dataset_digest
    assert (report["model"]["name"], report["model"]["parameters"]) == ("cnn3", 1_193_636)
    assert sum(layer["parameters"] for layer in report["model"]["layers"]) == 1_193_636
    assert report["world_size"] == 1
    assert report["train"]["images_per_s"] > 0
    assert report["duration_s"] > 0
    rows = {split: report[split]["rows"] for split in ("train", "validation", "test")}
    held_back = tuned.train_rows // 10
    assert rows == {
        "train": tuned.train_rows - held_back, "validation": held_back, "test": tuned.test_rows,
    }  # fmt: skip
    for split in rows:
        figures = report[split]
        assert 0.0 <= figures["top1"] <= figures["top5"] <= 1.0
        assert figures["top1"] <= figures["superclass_top1"] <= 1.0
    low, high = report["test"]["top1_interval"]
    assert low <= report["test"]["top1"] <= high
    assert report["test"]["loss"] > 0


def test_the_sweep_has_four_trials_that_differ_in_what_is_swept(tuned: Tuned) -> None:
    report = tuned.report
    trials = report["trials"]
    assert len(trials) == 4
    for field in ("optimizer.lr", "model.dropout", "optimizer.name"):
        assert len({trial["parameters"][field] for trial in trials}) > 1, field
    assert {(trial["state"], trial["epochs"]) for trial in trials} == {("finished", 2)}
    assert report["resolved_job"]["sweep"]["scheduler"]["name"] == "asha"
    best = max(trial["validation"]["top1"] for trial in trials)
    assert report["validation"]["top1"] == best
    (chosen,) = (trial for trial in trials if trial["id"] == report["best_trial_id"])
    assert chosen["validation"]["top1"] == best


def test_what_was_pulled_is_whole_by_its_own_indexes(tuned: Tuned) -> None:
    copy = Store.open(str(tuned.pulled))
    assert check_index(copy, "") == []
    assert check_index(copy, "report") == []
    best = tuned.pulled / copy.read_json("best.json")["checkpoint"]
    assert check_folder(best)["epoch"] == tuned.report["best_epoch"]
    checkpoint = load_checkpoint(best)
    assert len(checkpoint.classes) == 100
    assert len(checkpoint.coarse_classes) == 20
    assert (tuned.pulled / "report" / "report.html").stat().st_size > 10_000
    assert list(tuned.pulled.glob("attempts/1/driver.log"))


def test_no_key_is_in_anything_that_the_run_left_in_the_bucket(tuned: Tuned) -> None:
    secret = tuned.server.secret_key.encode()
    forms = (secret, secret.hex().encode(), secret.hex().upper().encode())
    store = tuned.cifarray.store
    holders = [e.key for e in store.list("") if any(f in store.read(e.key) for f in forms)]
    assert store.list("runs")
    assert holders == []


def test_submit_prepares_an_archive_and_two_workers_train_on_its_coarse_labels(
    cifarray: CommandLine, s3_server: S3Server, archive: Path, tmp_path: Path
) -> None:
    store = f"s3://{s3_server.new_bucket()}"
    typed = cifarray.with_environment(**s3_server.environment, CIFARRAY_STORE=store)
    run = typed.submit(
        "train-cifar100", "--archive", archive, *DIGITS, "--set", "dataset.labels=coarse",
        "--set", "dataset.rows=400", "--set", "train.epochs=1", "--set", "model.name=cnn3",
        "--set", "train.precision=fp32", "--set", "schedule.warmup_epochs=0",
    )  # fmt: skip
    pulled = typed.json("pull", run.id, tmp_path / "pulled")
    assert pulled["problems"] == []
    checkpoint = load_checkpoint(Path(pulled["checkpoints"]["best"]))
    assert len(checkpoint.classes) == 20
    report = typed.json("report", run.id)
    assert report["dataset"]["labels"] == "coarse"
    assert report["world_size"] == 2
    assert report["train"]["rows"] + report["validation"]["rows"] == 400
    assert 0.0 < report["test"]["top1_interval"][1] < 1.0
