"""Write a run's report: report.json, the page, the CSV files and the predictions."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cifarray.report.confusion import confusion, row_normalized
from cifarray.report.html import render
from cifarray.report.inputs import SPLITS, ReportDataset, ReportInputs, Trial, epoch_s
from cifarray.report.scores import Predictions
from cifarray.report.stored import SCHEMA_VERSION
from cifarray.report.tables import (
    per_class,
    write_confusion,
    write_curves,
    write_curves_json,
    write_per_class,
)
from cifarray.store.layout import PAGE_FILE, REPORT_FILE

FILES = (
    REPORT_FILE,
    PAGE_FILE,
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
    write_confusion(folder / "confusion_normalized.csv", row_normalized(counts), dataset.classes)
    write_per_class(folder / "per_class.csv", classes)
    pq.write_table(test.to_table(), folder / "predictions.parquet", compression="zstd")
    page = render(content, inputs, counts, classes)
    (folder / PAGE_FILE).write_text(page, encoding="utf-8", errors="replace")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8", errors="replace")
    return content


def report_content(inputs: ReportInputs) -> dict[str, Any]:
    """Return what report.json says; docs/report.md defines every field."""
    spec, job = inputs.spec, inputs.spec.job
    seeds = {"job": job.seed, "validation": job.validation.seed}
    if job.sweep is not None:
        seeds["sweep"] = job.sweep.seed
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": spec.run_id,
        "job": job.name,
        "kind": job.kind,
        "dataset": {
            "name": inputs.dataset.name,
            "title": inputs.dataset.title,
            "digest": inputs.dataset.digest,
            "labels": job.dataset.labels,
            "classes": len(inputs.dataset.classes),
            "left_out": inputs.dataset.left_out,
            "selection": {
                field: getattr(job.dataset, field) for field in ("classes", "archive_part", "rows")
            },
        },
        "model": {
            "name": job.model.name,
            "parameters": inputs.model_parameters,
            "input_shape": list(inputs.input_shape),
            "layers": [asdict(layer) for layer in inputs.layers],
        },
        "world_size": inputs.world_size,
        **{split: _figures(inputs.predictions[split], inputs.dataset) for split in SPLITS},
        "best_epoch": inputs.best_epoch,
        "epochs": len(inputs.history),
        "duration_s": inputs.duration_s,
        "submitted_at": spec.submitted_at,
        "reported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": spec.profile.name,
        "threads": inputs.threads,
        "seeds": seeds,
        "versions": spec.versions,
        "hardware": inputs.hardware,
        "code": None if spec.code is None else {"sha256": spec.code.sha256},
        "weights": None if spec.weights is None else spec.weights.model_dump(exclude={"key"}),
        "best_of": spec.best_of,
        "resolved_job": job.model_dump(mode="json"),
    }
    content["train"]["images_per_s"] = inputs.images_per_s
    content["train"]["epoch_s"] = epoch_s(inputs.history)
    if job.sweep is not None:
        content["best_trial_id"] = inputs.best_trial_id
        content["trials"] = [_trial(trial, job.sweep.metric) for trial in inputs.sweep_trials]
    plain: dict[str, Any] = _plain(content)
    return plain


def _figures(predictions: Predictions, dataset: ReportDataset) -> dict[str, Any]:
    coarse = dataset.fine_to_coarse
    return {
        "rows": predictions.rows,
        "top1": predictions.top1,
        "top1_interval": list(predictions.interval) if predictions.rows else None,
        "top5": predictions.top5,
        "loss": predictions.loss,
        "superclass_top1": predictions.superclass_top1(coarse) if coarse else None,
    }


def _trial(trial: Trial, metric: str) -> dict[str, Any]:
    best = trial.best(metric)
    return {
        "id": trial.id,
        "parameters": trial.parameters,
        "epochs": trial.epochs,
        "state": trial.state,
        "validation": {"top1": trial.top1},
        "best": best and {"metric": metric, "value": best.value, "epoch": best.epoch},
        "error": trial.error,
    }


def _plain(value: Any) -> Any:
    """Return what JSON can represent: numpy's numbers as Python's, null for nan and infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
