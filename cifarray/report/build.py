"""Write a run's report: report.json, the page, the CSV files and the predictions."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cifarray.report.html import render
from cifarray.report.inputs import Mistake, ReportDataset, ReportInputs
from cifarray.report.stored import report_content
from cifarray.report.tables import (
    confusion,
    normalized,
    per_class,
    write_confusion,
    write_curves,
    write_curves_json,
    write_per_class,
)

__all__ = ["FILES", "Mistake", "ReportDataset", "ReportInputs", "write_report"]

FILES = (
    "report.json",
    "report.html",
    "curves.csv",
    "curves.json",
    "confusion.csv",
    "confusion_normalized.csv",
    "per_class.csv",
    "predictions.parquet",
)


def write_report(folder: Path, inputs: ReportInputs) -> dict[str, Any]:
    """Write every file of the report into the folder and return the content of report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    test, dataset = inputs.predictions["test"], inputs.dataset
    content = report_content(inputs)
    counts = confusion(test, len(dataset.classes))
    classes = per_class(test, dataset)
    trials = inputs.sweep_trials
    histories = {trial.id: trial.history for trial in trials} or {"": inputs.history}
    write_curves(folder / "curves.csv", histories)
    write_curves_json(folder / "curves.json", histories)
    write_confusion(folder / "confusion.csv", counts, dataset.classes)
    write_confusion(folder / "confusion_normalized.csv", normalized(counts), dataset.classes)
    write_per_class(folder / "per_class.csv", classes)
    pq.write_table(test.to_table(), folder / "predictions.parquet", compression="zstd")
    page = render(content, inputs, counts, classes)
    (folder / "report.html").write_text(page, encoding="utf-8", errors="replace")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8", errors="replace")
    return content
