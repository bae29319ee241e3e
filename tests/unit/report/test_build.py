"""The files of a report agree with each other, with scikit-learn and with their documentation."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from cifarray.report.build import FILES, write_report
from cifarray.report.confusion import row_normalized
from cifarray.report.inputs import epoch_s
from cifarray.report.scores import Predictions, wilson
from cifarray.spec.run import WeightsSpec
from tests import report_samples
from tests.unit.report.conftest import Written

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "report.md"
OPEN_ENDED = ("versions", "hardware", "resolved_job", "best_of", "parameters")


@pytest.fixture(params=["trained", "swept"])
def written(request: pytest.FixtureRequest) -> Written:
    """A report of either kind."""
    report: Written = request.getfixturevalue(request.param)
    return report


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Return the path of every field, as the documentation writes it."""
    if isinstance(value, dict) and path.rpartition(".")[2] not in OPEN_ENDED:
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for part in value:
            yield from leaves(part, f"{path}[]")
    else:
        yield path


def test_every_file_is_there_and_report_json_is_what_was_returned(written: Written):
    assert sorted(path.name for path in written.folder.iterdir()) == sorted(FILES)
    assert json.loads((written.folder / "report.json").read_text()) == written.content


def test_report_json_scikit_learn_and_confusion_csv_agree_exactly(written: Written):
    table = pq.read_table(written.folder / "predictions.parquet")
    labels, guesses = table["label"].to_numpy(), table["prediction"].to_numpy()
    with (written.folder / "confusion.csv").open(newline="") as file:
        counts = np.array([line[1:] for line in list(csv.reader(file))[1:]], int)
    test = written.content["test"]
    assert test["top1"] == accuracy_score(labels, guesses)
    assert test["top1"] == np.trace(counts) / counts.sum()
    assert test["rows"] == counts.sum() == table.num_rows
    assert np.array_equal(counts, confusion_matrix(labels, guesses))
    assert test["top1_interval"] == list(wilson(int(np.trace(counts)), int(counts.sum())))
    assert test["top5"] == table["top5_hit"].to_numpy().mean()
    assert test["loss"] == Predictions.from_table(table).loss
    assert table.column_names[:4] == ["row_id", "label", "prediction", "probability"]


def test_the_normalized_matrix_is_scikit_learns(written: Written):
    table = pq.read_table(written.folder / "predictions.parquet")
    labels, guesses = table["label"].to_numpy(), table["prediction"].to_numpy()
    with (written.folder / "confusion_normalized.csv").open(newline="") as file:
        shares = np.array([line[1:] for line in list(csv.reader(file))[1:]], float)
    assert np.array_equal(shares, confusion_matrix(labels, guesses, normalize="true"))
    assert np.allclose(shares.sum(axis=1), 1)


def test_a_class_without_test_rows_has_no_shares():
    counts = np.array([[3, 1], [0, 0]])
    assert row_normalized(counts).tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_curves_json_holds_the_records_of_curves_csv(written: Written):
    with (written.folder / "curves.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    records = json.loads((written.folder / "curves.json").read_text())
    assert len(records) == len(lines)
    for record, line in zip(records, lines, strict=True):
        assert {name: str(value) for name, value in record.items()} == line


def test_the_layers_of_the_network_add_up_to_its_parameters(trained: Written):
    model = trained.content["model"]
    assert model["input_shape"] == [8, 8, 1]
    assert [layer["name"] for layer in model["layers"]] == [
        layer.name for layer in report_samples.LAYERS
    ]
    total = sum(layer.parameters for layer in report_samples.LAYERS)
    assert f"6 layers, {total:,} parameters, {total - 9216:,} of them trainable" in trained.page


def test_seconds_per_epoch_are_the_mean_of_the_records(trained: Written):
    assert trained.content["train"]["epoch_s"] == pytest.approx(1.9)
    assert epoch_s([{"epoch": 1}]) is None


def test_figures_of_every_split_come_from_its_own_predictions(written: Written):
    for split, predictions in written.inputs.predictions.items():
        assert written.content[split]["top1"] == predictions.top1
        assert written.content[split]["rows"] == predictions.rows


def test_superclass_top1_agrees_with_the_coarse_labels(swept: Written):
    table = pq.read_table(swept.folder / "predictions.parquet")
    coarse = np.array(swept.inputs.dataset.fine_to_coarse)
    expected = accuracy_score(coarse[table["label"]], coarse[table["prediction"]])
    assert swept.content["test"]["superclass_top1"] == expected


def test_a_dataset_without_superclasses_has_no_superclass_top1(trained: Written):
    assert trained.content["test"]["superclass_top1"] is None
    assert "superclass top-1" not in trained.page


def test_every_field_of_report_json_is_documented(written: Written):
    documented = set(re.findall(r"`([\w.\[\]*]+)`", DOCUMENTATION.read_text(encoding="utf-8")))
    for path in set(leaves(written.content)):
        same = re.sub(r"^(validation|test)\.", "train.", path)
        known = {path, same, f"{path}.*", path.rpartition(".")[0] + ".*"}
        assert known & documented or any(name.startswith(f"{path}.") for name in documented), path


def test_a_report_says_with_which_weights_its_training_began(tmp_path: Path):
    weights = WeightsSpec(
        key="runs/r/weights.safetensors", source="runs/b/epoch_1", sha256="ab" * 32, fresh=("h",)
    )
    spec = report_samples.run_spec().model_copy(update={"weights": weights})
    content = write_report(tmp_path, report_samples.inputs(spec=spec))
    assert content["weights"] == {
        "source": "runs/b/epoch_1",
        "sha256": "ab" * 32,
        "fresh": ["h"],
    }
    page = (tmp_path / "report.html").read_text()
    assert "<dt>initial weights</dt><dd>runs/b/epoch_1</dd>" in page
    assert "abababababab</code>" in page


def test_a_sweep_lists_every_trial_with_its_parameters_and_result(swept: Written):
    trials = swept.content["trials"]
    assert len(trials) == 20
    assert {trial["state"] for trial in trials} == {"finished", "stopped early", "failed"}
    assert set(trials[0]["parameters"]) == set(report_samples.SPACE)
    best = next(trial for trial in trials if trial["id"] == swept.content["best_trial_id"])
    top1 = [trial["validation"]["top1"] for trial in trials if trial["validation"]["top1"]]
    assert best["validation"]["top1"] == max(top1)
    assert best["best"]["value"] == max(top1)


def test_curves_csv_has_a_line_per_epoch_of_every_trial(swept: Written, trained: Written):
    for written in (swept, trained):
        with (written.folder / "curves.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        epochs = sum(trial["epochs"] for trial in written.content.get("trials", [])) or 12
        assert len(lines) == epochs
        assert {"trial_id", "epoch", "lr", "validation.top1"} <= set(lines[0])


def test_no_figure_is_written_as_nan(tmp_path: Path):
    test = report_samples.predictions(10, 20, 0.1)
    bad = Predictions(
        test.row_ids, test.labels, test.predictions, test.probabilities, test.top5_hits,
        np.full(20, np.nan),
    )  # fmt: skip
    splits = {"train": bad, "validation": bad, "test": bad}
    history = [{"epoch": 1, "validation.loss": float("nan"), "lr": float("inf")}]
    hardware = {"load": np.float64("nan"), "cores": np.int64(2)}
    inputs = report_samples.inputs(predictions=splits, history=history, hardware=hardware)
    content = write_report(tmp_path / "report", inputs)
    assert content["test"]["loss"] is None
    assert content["hardware"] == {"load": None, "cores": 2}
    text = (tmp_path / "report" / "report.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == content


def test_the_largest_expected_page_stays_below_three_megabytes(swept: Written):
    assert (swept.folder / "report.html").stat().st_size < 3_000_000
