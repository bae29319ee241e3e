"""What was written before the package was reordered stays readable: a store, job files, weights.

`tests/fixtures/release_0_1_0.py` made all of it with the code of that time, except what takes a
Ray node. Tune's own files of a sweep are not in it: nothing but `resume` of an interrupted sweep
reads them. To try that, submit `tune-digits` at commit 42ba913, stop it after some trials, and
`cifarray resume` it with today's code in the same store.
"""

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from cifarray.data.manifest import load_manifest
from cifarray.data.parquet import read_images
from cifarray.inference.evaluate import evaluate
from cifarray.inference.find_checkpoint import open_checkpoint
from cifarray.metrics import best_epoch
from cifarray.models.registry import MODELS, build_model
from cifarray.report.stored import fetch_report
from cifarray.runs import Run, read_metrics
from cifarray.spec.job import ModelSpec
from cifarray.spec.load import load_job
from cifarray.store import Store
from cifarray.store.contract import TRAITS, of_record
from cifarray.training.checkpoint import read_state
from cifarray.training.checkpoint_store import best_good, newest_good
from cifarray.training.trainer import Trainer
from cifarray.training.trials import best_trial, read_trials
from tests.conftest import REPOSITORY
from tests.digit_sessions import open_rows
from tests.unit.cli.conftest import Type, typed

ARCHIVE = REPOSITORY / "tests" / "fixtures" / "release_0_1_0.tar.xz"
TRAINED, SWEPT, FAILED = "old-digits-1", "old-sweep-1", "old-failed-1"
__all__ = ["typed"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fixture holds; tests that only read share it."""
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(cifarray_home: Path) -> Store:
    """The old store, where commands look for one."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(cifarray_home, filter="data")
    return Store.open(str(cifarray_home / "store"))


@pytest.fixture
def code(old: Store, tmp_path: Path) -> Path:
    """The folder of the network that the runs trained."""
    with zipfile.ZipFile(old.path(f"runs/{TRAINED}/code.zip")) as packed:
        packed.extractall(tmp_path / "code")
    return tmp_path / "code"


def written(unpacked: Path, name: str) -> dict[str, Any]:
    """What was kept beside the store."""
    kept: dict[str, Any] = json.loads((unpacked / name).read_text(encoding="utf-8"))
    return kept


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of whatever is no mapping."""
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for name, below in value.items():
        yield from flat(below, f"{path}.{name}".lstrip("."))


def test_the_runs_of_an_old_store_are_listed_and_described(old: Store, typed: Type) -> None:
    listed = {run["run_id"]: run["state"] for run in json.loads(typed("runs", "--json").out)}
    assert listed == {TRAINED: "finished", SWEPT: "finished", FAILED: "failed"}
    told = json.loads(typed("status", TRAINED, "--json").out)
    assert (told["state"], told["attempts"]) == ("finished", 1)
    assert [record["epoch"] for record in read_metrics(old, f"runs/{TRAINED}/attempts/1")] == [
        *range(1, 6)
    ]
    shown = typed("status", FAILED)
    assert shown.code == 0 and "the loss diverged in epoch 1 at lr 9" in shown.out


def test_the_best_epoch_of_an_old_run_is_that_of_its_report_and_of_its_checkpoint(
    old: Store, tmp_path: Path
) -> None:
    run = Run.open(old, TRAINED)
    best = best_epoch(run.metrics(), run.objective())
    assert best is not None and best["epoch"] == run.report()["best_epoch"] == 4
    attempt = run.place.of_attempt(1).prefix
    found = best_good(old, attempt, run.objective(), tmp_path / "best")
    newest = newest_good(old, attempt, tmp_path / "newest")
    assert found is not None and newest is not None
    assert (found.epoch, newest.epoch) == (4, 5)
    assert found.key == run.key(old.read_json(run.key("best.json"))["checkpoint"])


def test_the_trials_of_an_old_sweep_are_ranked(old: Store) -> None:
    run = Run.open(old, SWEPT)
    trials = read_trials(old, f"{run.place.of_attempt(1).prefix}/trials", {}, 2)
    assert [(trial.params["optimizer.lr"], trial.state) for trial in trials] == [
        (0.001, "finished"),
        (0.05, "finished"),
    ]
    best = best_trial(trials, "validation.top1")
    assert best is not None and best.id == run.report()["best_trial_id"]


def test_old_reports_are_shown_compared_and_fetched(
    old: Store, typed: Type, tmp_path: Path
) -> None:
    for run_id in (TRAINED, SWEPT):
        assert typed("report", run_id).code == 0
        fetch_report(Run.open(old, run_id), tmp_path / run_id)
        assert (tmp_path / run_id / "report.html").is_file()
    compared = json.loads(typed("compare", TRAINED, SWEPT, "--json").out)
    assert [run["run_id"] for run in compared["runs"]] == [TRAINED, SWEPT]


def test_an_old_run_is_pulled_whole(old: Store, typed: Type, tmp_path: Path) -> None:
    pulled = typed("pull", SWEPT, tmp_path / "pulled")
    assert pulled.code == 0, pulled.err
    names = {path.name for path in (tmp_path / "pulled").rglob("*") if path.is_file()}
    assert {"job.yaml", "metrics.jsonl", "state.pt", "report.html"} <= names


@pytest.mark.parametrize("run_id", [TRAINED, SWEPT])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_old_checkpoint_predicts_what_it_predicted(
    old: Store, code: Path, run_id: str, split: str
) -> None:
    checkpoint, _ = open_checkpoint(run_id, lambda: old, code)
    found = evaluate(checkpoint, old, split=split).predictions
    kept = pq.read_table(old.path(f"runs/{run_id}/attempts/1/evaluation/{split}.parquet"))
    assert found.row_ids.tolist() == kept["row_id"].to_pylist()
    assert found.predictions.tolist() == kept["prediction"].to_pylist()
    assert np.allclose(found.losses, kept["loss"].to_numpy(), rtol=1e-5)


def test_an_image_is_classified_by_an_old_network(
    old: Store, code: Path, typed: Type, tmp_path: Path
) -> None:
    manifest = load_manifest(old, "digits")
    (image,) = read_images(old, manifest, "test", np.array([3]), 8)
    Image.fromarray(image[..., 0]).save(tmp_path / "image.png")
    told = json.loads(
        typed("predict", TRAINED, tmp_path / "image.png", "--code", code, "--json").out
    )
    kept = pq.read_table(old.path(f"runs/{TRAINED}/attempts/1/evaluation/test.parquet"))
    expected = kept["prediction"][kept["row_id"].to_pylist().index(3)].as_py()
    assert told[0]["top5"][0]["label"] == manifest.classes[expected]


def test_an_old_training_goes_on_from_its_newest_checkpoint(
    old: Store, code: Path, tmp_path: Path
) -> None:
    run = Run.open(old, TRAINED)
    newest = newest_good(old, run.place.of_attempt(1).prefix, tmp_path / "newest")
    assert newest is not None and newest.folder is not None
    job = run.spec().job
    longer = job.model_copy(update={"train": job.train.model_copy(update={"epochs": 6})})
    manifest = load_manifest(old, "digits", run.spec().dataset_digest)
    trainer = Trainer(longer, open_rows(old, manifest, longer), code, None)
    state = read_state(newest.folder)
    state["job"] = longer.model_dump(mode="json")
    trainer.restore(state)
    assert [record["epoch"] for record in trainer.records()] == [6]
    assert trainer.history[:5] == run.metrics()


def test_an_old_dataset_is_verified_and_described(old: Store, typed: Type) -> None:
    verified = typed("data", "verify", "digits")
    assert verified.code == 0, verified.err
    told = json.loads(typed("data", "inspect", "digits", "--json").out)
    assert told["digest"] == Run.open(old, TRAINED).spec().dataset_digest


def test_old_runs_are_pruned_and_deleted(old: Store, typed: Type) -> None:
    told = typed("prune", "--keep-best", "1", "--older-than", "0d", "--dry-run")
    assert told.code == 0 and FAILED in told.out, told
    assert typed("delete", FAILED, SWEPT, "--yes").code == 0
    assert [run["run_id"] for run in json.loads(typed("runs", "--json").out)] == [TRAINED]


def test_what_was_found_out_about_a_server_is_not_asked_again(unpacked: Path) -> None:
    record = written(unpacked, "contract.json")
    contract = of_record(record, record["uri"], record["endpoint"], record["server"])
    assert contract is not None and set(contract.answers) == set(TRAITS)
    assert contract.refusal() is None


def test_job_files_of_that_time_mean_what_they_meant(unpacked: Path, tmp_path: Path) -> None:
    jobs = written(unpacked, "jobs.json")
    assert len(jobs) > 25
    for name, old_job in jobs.items():
        path = tmp_path / f"{name.partition(' ')[0]}.yaml"
        path.write_text(yaml.safe_dump(old_job["file"]), encoding="utf-8")
        now = dict(flat(load_job(str(path), old_job["sets"]).model_dump(mode="json")))
        differs = {
            field: (value, now.get(field, "absent"))
            for field, value in old_job["resolved"].items()
            if now.get(field, "absent") != value
        }
        assert not differs, name


def test_networks_of_that_time_have_the_weights_that_they_had(unpacked: Path) -> None:
    digests = {}
    for name in written(unpacked, "networks.json"):
        height, width, channels = MODELS[name].input_shape
        with torch.device("meta"):
            network = build_model(ModelSpec(name=name), 10, (height, width, channels))
        weights = {key: list(value.shape) for key, value in network.state_dict().items()}
        digests[name] = hashlib.sha256(json.dumps(weights).encode()).hexdigest()
    assert digests == written(unpacked, "networks.json")
