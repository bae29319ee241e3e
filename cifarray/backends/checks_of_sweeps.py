"""What a sweep's space, search and scheduler show to be impossible before a node starts."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.spec.load import check_field, types_of, with_fields
from cifarray.spec.space import Domain
from cifarray.training.reads import decides, unread_fields
from cifarray.tuning.trials import case_values, most_epochs, trial_job

NOT_SWEEPABLE = {
    "name": "it only names the job",
    "kind": "a trial is a train job",
    "description": "it changes nothing",
    "dataset": "trials on different rows cannot be compared",
    "augment.preset": "it stands for other fields, which can be",
    "validation": "trials judged by different rows cannot be compared",
    "sweep": "a sweep does not vary itself",
    "train.compile": "it changes the speed, not the result",
    "train.channels_last": "it changes the speed, not the result",
    "model.weights": "all trials begin with the one file of weights that the run holds",
    "model.features": "it changes the speed, not the result",
    "train.histograms": "it shows the training, and changes nothing",
}
LENGTHS = ("train.epochs", "train.steps", "train.global_batch_size")
"""Fields that a schedule has to fit."""
MOST_COMBINATIONS = 4096
"""Of the values of fields that are judged together; of more, each value is tried by itself."""
OPTUNA_SEEDS = 2**32


def candidates(job: Job) -> Iterable[Job]:
    """The job itself, or train jobs that between them hold every value that a sweep may try.

    Fields that are judged together come in every combination. Raises: JobError.
    """
    if job.sweep is None:
        return [job]
    _check_space(job)
    if job.sweep.cases:
        return _cases(job)
    space = job.sweep.space
    first = {path: domain.examples[0] for path, domain in space.items()}
    tried = [
        trial_job(job, first | values)
        for group in _groups(space)
        for values in _combinations({path: space[path] for path in group})
    ]
    _refuse_unread(job, first)
    return tried


def remarks(job: Job) -> list[str]:
    """What is allowed and perhaps not meant."""
    rule = job.sweep.scheduler if job.sweep else None
    most = most_epochs(job)
    if rule is None or rule.name != "asha" or most is None or rule.grace_epochs < most:
        return []
    return [
        f"sweep.scheduler.grace_epochs {rule.grace_epochs} is not below the {most} epochs of the "
        "longest trial: asha will stop none early"
    ]


def _cases(job: Job) -> list[Job]:
    """The trial of each case. Raises: JobError for a field that its own case leaves unread."""
    assert job.sweep is not None
    trials = []
    for number, (given, case) in enumerate(zip(job.sweep.cases, case_values(job), strict=True)):
        trial = with_fields(job.model_copy(update={"kind": "train", "sweep": None}), case)
        if unread := sorted(given.keys() & set(unread_fields(trial))):
            raise JobError(
                f"sweep.cases.{number} gives {unread[0]}, and nothing that it chooses reads that"
            )
        trials.append(trial_job(job, case))
    return trials


def _groups(space: Mapping[str, Domain]) -> list[list[str]]:
    """The swept fields, those together of which one may not fit beside another."""
    groups: dict[str, list[str]] = {}
    for path in space:
        section = "schedule" if path in LENGTHS else path.partition(".")[0]
        together = section in ("augment", "model", "optimizer", "preprocess", "schedule")
        groups.setdefault(section if together else path, []).append(path)
    return list(groups.values())


def _combinations(space: Mapping[str, Domain]) -> Iterator[dict[str, Any]]:
    """Values of these fields; a range gives its two ends."""
    examples = [[(path, value) for value in domain.examples] for path, domain in space.items()]
    if math.prod(map(len, examples)) <= MOST_COMBINATIONS:
        yield from map(dict, product(*examples))
        return
    for names in _names(space):
        yield from ({path: value} | names for values in examples for path, value in values)


def _names(space: Mapping[str, Domain]) -> list[dict[str, Any]]:
    """Every combination of the networks, optimizers, schedules and switches that are swept."""
    names = [
        [(path, value) for value in domain.examples]
        for path, domain in space.items()
        if decides(path)
    ]
    return list(map(dict, product(*names)))


def _check_space(job: Job) -> None:
    assert job.sweep is not None
    search, kinds = job.sweep.search, [domain.kind for domain in job.sweep.space.values()]
    if search == "grid" and "grid" not in kinds:
        raise JobError("sweep.search grid wants at least one field of kind grid in sweep.space")
    if search != "grid" and "grid" in kinds:
        raise JobError(f"sweep.search {search} takes no grid field; use choice, or search=grid")
    if search == "optuna" and job.sweep.seed >= OPTUNA_SEEDS:
        raise JobError(
            f"sweep.seed {job.sweep.seed} is too large for optuna; give one below {OPTUNA_SEEDS}"
        )
    if job.sweep.scheduler.name == "asha" and most_epochs(job) is None:
        raise JobError(
            "sweep.scheduler asha has to know the most epochs of a trial; set train.epochs (beside "
            "train.steps, if you like), or choose median or none"
        )
    if job.model.weights != "none" and "model.name" in job.sweep.fields:
        raise JobError(
            f"model.name cannot be swept beside model.weights {job.model.weights}, which are of "
            "one network; sweep each network by itself"
        )
    for path in job.sweep.fields:
        check_field(Job, path)
        if within := [other for other in job.sweep.fields if other.startswith(f"{path}.")]:
            raise JobError(
                f"{path} and {within[0]}, which lies within it, cannot both be swept: a trial has "
                "one value of each; give the whole record or its fields, in every trial the same"
            )
        for prefix, reason in NOT_SWEEPABLE.items():
            if path == prefix or path.startswith(f"{prefix}."):
                raise JobError(f"{path} cannot be swept: {reason}")
    for path, domain in job.sweep.space.items():
        kinds_of_value = types_of(Job, path)
        if domain.kind in ("uniform", "loguniform") and kinds_of_value & {int, bool}:
            raise JobError(
                f"{path} takes no fractions, and {domain.kind} draws them; use randint or choice"
            )


def _refuse_unread(job: Job, first: dict[str, Any]) -> None:
    """Refuse a field that is set or swept though no trial could ever read it."""
    assert job.sweep is not None
    base = job.model_copy(update={"kind": "train", "sweep": None})
    trials = [with_fields(base, first | names) for names in _names(job.sweep.space)]
    never = sorted(set.intersection(*(set(unread_fields(trial)) for trial in trials)))
    if never:
        raise JobError(f"no trial uses {never[0]}: nothing that any of them chooses reads it")
