"""Statistics per class and the CSV files, against scikit-learn and hand-made counts."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from cifarray.report.confusion import Pair, confusion, worst_pairs
from cifarray.report.scores import Predictions
from cifarray.report.tables import per_class, write_confusion, write_curves, write_per_class
from tests import report_samples


def test_precision_recall_and_f1_are_scikit_learns():
    test = report_samples.predictions(10, 700, 0.2)
    rows = per_class(test, report_samples.dataset(10))
    given = {"y_true": test.labels, "y_pred": test.predictions, "average": None}
    assert [row.precision for row in rows] == precision_score(**given).tolist()
    assert [row.recall for row in rows] == recall_score(**given).tolist()
    assert [row.f1 for row in rows] == f1_score(**given).tolist()
    assert sum(row.rows for row in rows) == sum(row.predicted_rows for row in rows) == 700


def test_a_class_that_is_never_predicted_or_absent_has_zeros_and_no_warning():
    ones = np.ones(3)
    test = Predictions(np.arange(3), [0, 0, 1], [0, 0, 0], ones, ones, ones)
    rows = per_class(test, report_samples.dataset(3))
    assert (rows[1].precision, rows[1].recall, rows[1].f1) == (0.0, 0.0, 0.0)
    assert (rows[2].rows, rows[2].recall) == (0, 0.0)
    assert confusion(test, 3).tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_worst_pairs_are_the_most_frequent_confusions():
    counts = np.array([[90, 10, 0], [4, 6, 0], [0, 10, 10]])
    assert worst_pairs(counts, 3) == [Pair(0, 1, 10, 0.1), Pair(2, 1, 10, 0.5), Pair(1, 0, 4, 0.4)]
    assert worst_pairs(counts, 1) == [Pair(0, 1, 10, 0.1)]
    assert worst_pairs(np.eye(3, dtype=int), 5) == []


def test_confusion_csv_holds_the_counts_between_the_names(tmp_path: Path):
    write_confusion(tmp_path / "c.csv", np.array([[3, 1], [0, 2]]), ["cat", "a, b"])
    with (tmp_path / "c.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [["label", "cat", "a, b"], ["cat", "3", "1"], ["a, b", "0", "2"]]


def test_per_class_csv_gives_back_every_number(tmp_path: Path):
    rows = per_class(report_samples.predictions(10, 700, 0.2), report_samples.dataset(10, 3))
    write_per_class(tmp_path / "p.csv", rows)
    with (tmp_path / "p.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(line["precision"]) for line in read] == [row.precision for row in rows]
    assert [line["superclass"] for line in read] == [row.superclass for row in rows]


@pytest.mark.parametrize(
    ("name", "cell"),
    [("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@a", "'@a"), ("\r=1", "\ufffd=1")],
)
def test_no_class_name_becomes_a_formula_or_a_line(tmp_path: Path, name: str, cell: str):
    write_confusion(tmp_path / "c.csv", np.array([[1]]), [name])
    with (tmp_path / "c.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["label", cell], [cell, "1"]]


def test_curves_csv_has_the_fields_of_all_records(tmp_path: Path):
    histories = {"a": [{"epoch": 1, "lr": 0.1}], "b": [{"lr": 0.2, "epoch": 1, "note": -3}]}
    write_curves(tmp_path / "curves.csv", histories)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines == ["trial_id,epoch,lr,note", "a,1,0.1,", "b,1,0.2,-3"]
