"""Which of a job's fields its own choices leave unread; known without torch."""

from collections.abc import Iterable

from cifarray.models.registry import MODELS
from cifarray.spec.job import Job
from cifarray.spec.load import with_fields
from cifarray.training.optimizers import OPTIMIZERS
from cifarray.training.schedules import SCHEDULES, WARMUP_FIELDS

SWITCHES = frozenset({"preprocess.normalize", "augment.rotation", "augment.shift", "augment.zoom"})
"""Fields that, like names, decide which others are read."""


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
    if job.model.name in MODELS:
        reads["model"] = MODELS[job.model.name].reads
    unread: list[str] = []
    for section, fields in reads.items():
        given = getattr(job, section).model_dump(exclude={"name", "lr"}, exclude_none=True)
        unread += [
            f"{section}.{field}" for field in given if field not in fields and given[field] != {}
        ]
    return unread


def unset(job: Job, paths: Iterable[str]) -> Job:
    """The job with these fields as if nobody had set them."""
    return with_fields(job, {path: {} if path == "model.args" else None for path in paths})
