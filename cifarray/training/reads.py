"""Which of a job's fields its own choices leave unread; known without torch."""

from collections.abc import Iterable

from cifarray.models.registry import find_entry
from cifarray.spec.job import Job, ModelSpec
from cifarray.spec.load import with_fields
from cifarray.training.optimizers import OPTIMIZERS
from cifarray.training.schedules import SCHEDULES, WARMUP_FIELDS

SWITCHES = frozenset({"preprocess.normalize", "augment.rotation", "augment.shift", "augment.zoom"})
"""Fields that, like names, decide which others are read."""
MODEL_DEFAULTS = {
    f"model.{name}": field.get_default(call_default_factory=True)
    for name, field in ModelSpec.model_fields.items()
}
"""What these fields hold when nobody sets them; in other sections that is None."""


def decides(path: str) -> bool:
    """Whether another value of the field at this path may leave others unread."""
    return path.endswith(".name") or path in SWITCHES


def unread_fields(job: Job) -> list[str]:
    """Dotted paths of fields that are set, but that nothing chosen by this job reads.

    Names that are in no registry, and networks of the user's own, count as reading everything.
    """
    reads = {"augment": job.augment.reads, "preprocess": job.preprocess.reads}
    if job.optimizer.name in OPTIMIZERS:
        reads["optimizer"] = OPTIMIZERS[job.optimizer.name].fields
    if job.schedule.name in SCHEDULES:
        reads["schedule"] = SCHEDULES[job.schedule.name].fields | WARMUP_FIELDS
    if entry := find_entry(job.model.name):
        reads["model"] = entry.reads
    unread: list[str] = []
    for section, fields in reads.items():
        given = getattr(job, section).model_dump(exclude={"name", "lr"}, exclude_none=True)
        unread += [
            f"{section}.{field}"
            for field, value in given.items()
            if field not in fields and value != MODEL_DEFAULTS.get(f"{section}.{field}")
        ]
    return unread


def unset(job: Job, paths: Iterable[str]) -> Job:
    """The job with these fields as if nobody had set them."""
    return with_fields(job, {path: MODEL_DEFAULTS.get(path) for path in paths})
