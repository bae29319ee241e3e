"""What report.json says, and reading it back from a run; docs/report.md defines every field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cifarray.errors import InputError, StoreError
from cifarray.report.inputs import SPLITS, ReportDataset, ReportInputs, Trial, epoch_s
from cifarray.report.scores import Predictions
from cifarray.runs import Run, check_index
from cifarray.runs.folders import read_index
from cifarray.spec.bounds import parse_json
from cifarray.store import Store
from cifarray.store.layout import INDEX_FILE, PAGE_FILE, REPORT_FILE

SCHEMA_VERSION = 1

NUMBER = (int, float)
REQUIRED: dict[str, type | tuple[type, ...]] = {
    "run_id": str,
    "job": str,
    "kind": str,
    "dataset.name": str,
    "dataset.digest": str,
    "model.name": str,
    "model.parameters": int,
    "world_size": int,
    "train.top1": NUMBER,
    "validation.top1": NUMBER,
    "test.rows": int,
    "test.top1": NUMBER,
    "test.top1_interval": list,
    "duration_s": NUMBER,
    "seeds.job": int,
    "versions": dict,
    "hardware": dict,
    "resolved_job": dict,
}
"""What every reader of a report counts on, with its types."""

REQUIRED_OF_A_TRIAL: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "parameters": dict,
    "state": str,
}


def read_report(run: Run) -> dict[str, Any]:
    """Return a run's report.json.

    Raises: StoreError if there is none, it is damaged, or a newer cifarray wrote it.
    """
    report: Any = run.report()
    version = field_at(report, "schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"report.json of run {run.id} has schema_version {version!r} and this cifarray reads"
            f" {SCHEMA_VERSION}; install the version of cifarray that wrote it"
        )
    _check(run, report, REQUIRED)
    for trial in report.get("trials") or ():
        _check(run, trial, REQUIRED_OF_A_TRIAL)
    return dict(report)


def _check(run: Run, record: Any, required: Mapping[str, type | tuple[type, ...]]) -> None:
    for path, kind in required.items():
        found = field_at(record, path)
        if not isinstance(found, kind) or isinstance(found, bool):
            raise StoreError(
                f"report.json of run {run.id} is damaged: {path} is {found!r}; the checkpoints"
                f" are not: `cifarray evaluate {run.id}` gives the test figures again"
            )


def fetch_report(run: Run, folder: Path) -> Path:
    """Bring every file of a run's report into the folder, the index last; return the page.

    Raises: StoreError if a file arrives with other bytes than the index says; InputError if the
    folder holds files of these names that are not an earlier copy of this report.
    """
    prefix = run.report_prefix()
    listed = read_index(run.store, prefix)
    # report.json, which tells whose report this is, comes first: a fetch that is cut can go on.
    names = [*sorted(listed, key=lambda name: name != REPORT_FILE), INDEX_FILE]
    _refuse_other_content(run, folder, names)
    for name in names:
        run.store.download(f"{prefix}/{name}", folder / name)
    problems = check_index(Store.open(str(folder.absolute())), "")
    if problems:
        raise StoreError(f"the report of run {run.id} did not arrive whole: {problems[0]}")
    return folder / PAGE_FILE


def _refuse_other_content(run: Run, folder: Path, names: Sequence[str]) -> None:
    try:
        taken = [name for name in names if (folder / name).exists()]
        if not taken or _reported_run(folder) == run.id:
            return
    except OSError as error:
        raise InputError(
            f"cannot write into {folder}: {error.strerror}; give another folder with --output"
        ) from error
    raise InputError(
        f"{folder} holds {taken[0]} of something other than run {run.id}'s report; give a new "
        "folder with --output"
    )


def _reported_run(folder: Path) -> Any:
    """Whose report a folder holds; None where it holds none."""
    try:
        return field_at(parse_json((folder / REPORT_FILE).read_bytes()), "run_id")
    except (FileNotFoundError, ValueError):
        return None


def field_at(record: Any, path: str) -> Any:
    """Return the field at a dotted path; None where it or anything on the way is absent."""
    found = record
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


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
    """Return what JSON can hold: numpy's numbers as Python's, null for nan and infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
