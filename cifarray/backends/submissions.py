"""Which runs were submitted from here: a list in the user's own folder, which no store reaches.

Whoever may write to a store can change a run's job.yaml, the profile and the code that it names.
A run counts as submitted from here only while its job.yaml has the bytes that were written then.
"""

import hashlib
import json
from contextlib import suppress

from cifarray.backends.local.state import append_private
from cifarray.errors import ClusterError, KeyMissingError
from cifarray.runs import Run
from cifarray.runs.run import read_spec, spec_bytes
from cifarray.spec.bounds import parse_json
from cifarray.spec.run import RunSpec
from cifarray.store.layout import SPEC_FILE
from cifarray.user_folders import state_folder

SUBMITTED_FILE = "submitted.jsonl"


def remember_submission(spec: RunSpec) -> None:
    """Note a run that is submitted now; where no folder takes that, `resume` asks about it."""
    _append(_of_job(spec.run_id, spec_bytes(spec)))


def remember_context(run_id: str, context: str) -> None:
    """Note by which context of this kubeconfig a run went to its cluster."""
    _append({"run_id": run_id, "context": context})


def submitted_spec(run: Run) -> RunSpec | None:
    """The run's job.yaml, if it is the one that was submitted from here. Raises: StoreError."""
    known = _entries()
    if not any(entry.get("run_id") == run.id for entry in known):
        return None
    try:
        data = run.store.read(run.key(SPEC_FILE))
    except KeyMissingError:
        return None
    return read_spec(run.id, data) if _of_job(run.id, data) in known else None


def submitted_context(run_id: str) -> str | None:
    """The context by which a run last went to its cluster from here."""
    contexts = [entry.get("context") for entry in _entries() if entry.get("run_id") == run_id]
    return next((context for context in reversed(contexts) if context), None)


def _of_job(run_id: str, data: bytes) -> dict[str, str]:
    return {"run_id": run_id, "job_sha256": hashlib.sha256(data).hexdigest()}


def _append(entry: dict[str, str]) -> None:
    with suppress(ClusterError, OSError):
        append_private(state_folder() / SUBMITTED_FILE, json.dumps(entry) + "\n")


def _entries() -> list[dict[str, str]]:
    """All notes; a line that was cut while it was written counts for nothing."""
    try:
        text = (state_folder() / SUBMITTED_FILE).read_text("utf-8", "replace")
    except (ClusterError, OSError):
        return []
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(parse_json(line))
    return [entry for entry in found if isinstance(entry, dict)]
