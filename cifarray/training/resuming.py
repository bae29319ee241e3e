"""What has to be the same for a training to go on from a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifarray.data.manifest import Manifest
from cifarray.data.selection import Selection, differences
from cifarray.errors import CheckpointError
from cifarray.spec.job import Job


def check_resumable(
    state: Mapping[str, Any],
    job: Job,
    manifest: Manifest,
    selection: Selection,
    classes: Sequence[str],
) -> None:
    """Refuse a checkpoint of other data or of another job. Raises: CheckpointError."""
    digest = manifest.digest
    if state["dataset"]["digest"] != digest:
        raise CheckpointError(
            f"the checkpoint was trained on dataset digest {state['dataset']['digest'][:12]}, "
            f"not {digest[:12]}; a run resumes on the data that it began with"
        )
    then = Job.model_validate(state["job"])
    if others := differences(then, job):
        raise CheckpointError(
            f"the checkpoint was trained on another selection ({'; '.join(others)}); a run "
            "resumes with the rows and classes that it began with: submit a new run instead"
        )
    if (
        then != job
        or list(state["classes"]) != list(classes)
        or state["validation_sha256"] != selection.validation_sha256
    ):
        raise CheckpointError(
            "the checkpoint belongs to another job; a run resumes with the job that it began "
            "with: submit a new run instead"
        )
