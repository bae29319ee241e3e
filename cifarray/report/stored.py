"""Read a run's report.json from the store, and fetch the whole report to a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifarray.errors import InputError, StoreError
from cifarray.runs import Run, check_index
from cifarray.runs.index import read_index
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
            f"report.json of run {run.id} has schema_version {version!r}, but this cifarray reads"
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
                f"report.json of run {run.id} is damaged: {path} is {found!r}; the checkpoints "
                f"may be intact: `cifarray evaluate {run.id}` computes the test figures again"
            )


def fetch_report(run: Run, folder: Path) -> Path:
    """Download every file of a run's report into the folder, the index last; return the page.

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
        raise StoreError(f"the report of run {run.id} did not arrive complete: {problems[0]}")
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
        f"{folder} already contains {taken[0]}, which is not from run {run.id}'s report; give a "
        "new folder with --output"
    )


def _reported_run(folder: Path) -> Any:
    """The run whose report a folder contains; None if it contains none."""
    try:
        return field_at(parse_json((folder / REPORT_FILE).read_bytes()), "run_id")
    except (FileNotFoundError, ValueError):
        return None


def field_at(record: Any, path: str) -> Any:
    """Return the field at a dotted path; None if it or anything on the way is absent."""
    found = record
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
