"""Statistics per class and the CSV files of a report; scikit-learn does the counting."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from cifarray.report.formats import printable
from cifarray.report.inputs import ReportDataset
from cifarray.report.scores import Predictions
from cifarray.store import to_json

FORMULA_STARTS = ("=", "+", "-", "@")


@dataclass(frozen=True)
class ClassRow:
    """The figures of one class on the test split."""

    label: int
    name: str
    superclass: str
    rows: int
    predicted_rows: int
    precision: float
    """0 where the class was never predicted."""
    recall: float
    """0 if test has no row of the class."""
    f1: float


def per_class(predictions: Predictions, dataset: ReportDataset) -> list[ClassRow]:
    """Return precision, recall and F1 of every class, by label."""
    known = list(range(len(dataset.classes)))
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.labels, predictions.predictions, labels=known, zero_division=0.0
    )
    predicted = np.bincount(predictions.predictions, minlength=len(known))
    return [
        ClassRow(
            label=label,
            name=dataset.classes[label],
            superclass=dataset.superclass(label),
            rows=int(support[label]),
            predicted_rows=int(predicted[label]),
            precision=float(precision[label]),
            recall=float(recall[label]),
            f1=float(f1[label]),
        )
        for label in known
    ]


def write_confusion(path: Path, counts: NDArray[Any], classes: Sequence[str]) -> None:
    """Write counts or shares: a line per label, a column per prediction, names along both sides."""
    header = ["label", *map(_cell, classes)]
    lines = ([_cell(name), *row] for name, row in zip(classes, counts.tolist(), strict=True))
    _write(path, header, lines)


def write_per_class(path: Path, rows: Iterable[ClassRow]) -> None:
    """Write a line per class."""
    header = [field.name for field in fields(ClassRow)]
    _write(path, header, ([_cell(value) for value in astuple(row)] for row in rows))


def write_curves(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write every epoch of every trial; a run that is not a sweep has one history, under ''."""
    keys = dict.fromkeys(key for history in histories.values() for rec in history for key in rec)
    columns = ["epoch", *(key for key in keys if key != "epoch")]
    lines = (
        [_cell(trial_id), *(_cell(record.get(column, "")) for column in columns)]
        for trial_id, history in histories.items()
        for record in history
    )
    _write(path, ["trial_id", *columns], lines)


def write_curves_json(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the same epochs as a list of records; a figure that is not finite is null."""
    records = [
        {"trial_id": trial_id, **record}
        for trial_id, history in histories.items()
        for record in history
    ]
    path.write_bytes(to_json(records))


def _cell(value: Any) -> Any:
    """Return text on one line that no spreadsheet takes for a formula; other values as they are."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _write(path: Path, header: Sequence[Any], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
