"""A run's figures agree wherever they stand: report, predictions, confusion matrix, evaluate."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score

from cifarray.runs import Run
from tests.integration.command_line import CommandLine


@pytest.fixture(scope="module")
def pulled(
    cifarray: CommandLine, trained: Run, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What `pull` brought of the undisturbed training."""
    folder = tmp_path_factory.mktemp("pulled") / "run"
    found: dict[str, Any] = cifarray.json("pull", trained.id, folder)
    return found


@pytest.fixture(scope="module")
def test_figures(cifarray: CommandLine, trained: Run) -> dict[str, Any]:
    """The report's figures of the test split."""
    figures: dict[str, Any] = cifarray.json("report", trained.id)["test"]
    assert figures["rows"] == 360
    assert 0.5 < figures["top1"] < 1.0
    return figures


def test_scikit_learn_finds_the_reports_accuracy_in_the_predictions(
    pulled: dict[str, Any], test_figures: dict[str, Any]
) -> None:
    rows = pq.read_table(Path(pulled["folder"]) / "report" / "predictions.parquet").to_pydict()
    assert rows["row_id"] == sorted(set(rows["row_id"]))
    assert accuracy_score(rows["label"], rows["prediction"]) == test_figures["top1"]
    assert np.mean(rows["top5_hit"]) == test_figures["top5"]
    assert math.fsum(rows["loss"]) / len(rows["loss"]) == test_figures["loss"]


def test_the_confusion_matrix_adds_up_to_the_reports_accuracy(
    pulled: dict[str, Any], test_figures: dict[str, Any]
) -> None:
    text = (Path(pulled["folder"]) / "report" / "confusion.csv").read_text(encoding="utf-8")
    counts = np.array([line[-10:] for line in list(csv.reader(text.splitlines()))[1:]], int)
    assert counts.shape == (10, 10)
    assert counts.sum() == test_figures["rows"]
    assert np.trace(counts) / counts.sum() == test_figures["top1"]


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_evaluate_on_the_pulled_checkpoint_gives_exactly_what_two_workers_gave(
    cifarray: CommandLine, trained: Run, pulled: dict[str, Any], split: str
) -> None:
    found = cifarray.json("evaluate", pulled["folder"], "--split", split)
    figures = cifarray.json("report", trained.id)[split]
    for name in ("rows", "top1", "top1_interval", "top5", "loss"):
        assert found[name] == figures[name], name
    assert found["epoch"] == cifarray.json("report", trained.id)["best_epoch"]
