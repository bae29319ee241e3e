"""What has to be the same for a training to go on from a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from cifarray.data.manifest import Manifest
from cifarray.data.split import Selection, differences
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
    if missing := [r["epoch"] for r in state["history"] if not _is_number(r.get(job.metric))]:
        raise CheckpointError(
            f"the checkpoint's epoch {missing[0]} has no figure {job.metric}; use another one"
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


def check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse an optimizer's state that is not of this one's weights. Raises: CheckpointError."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    mine = [_kinds(group) for group in optimizer.state_dict()["param_groups"]]
    fits = [_kinds(group) for group in saved["param_groups"]] == mine
    for number, values in saved["state"].items():
        fits = fits and number < len(weights)
        shapes = ((), tuple(weights[number].shape)) if fits else ()
        for value in values.values():
            if isinstance(value, Tensor):
                fits = fits and tuple(value.shape) in shapes and value.is_floating_point()
            else:
                fits = fits and (value is None or _is_number(value))
    if not fits:
        raise CheckpointError(
            "the checkpoint's optimizer is not of this job and network; use another checkpoint"
        )


def _kinds(group: Mapping[str, Any]) -> dict[str, object]:
    """What has to be the same in two groups of parameters: the kind of each option."""
    return {
        name: value if name == "params" else "number" if _is_number(value) else type(value)
        for name, value in group.items()
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
