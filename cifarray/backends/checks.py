"""Checks of job, profile and manifest that need no running node; no torch, no ray."""

import importlib.metadata
import math
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from cifarray import __version__
from cifarray.data.catalog import DATASETS
from cifarray.data.manifest import Manifest
from cifarray.data.split import (
    KnownDataset,
    Selection,
    check_part,
    known_dataset,
    learned_labels,
    select_rows,
)
from cifarray.errors import JobError
from cifarray.metrics import OBJECTIVES
from cifarray.models.registry import check_model, is_user_network
from cifarray.spec.augment import check_images, held_shape
from cifarray.spec.job import Job
from cifarray.spec.load import check_field, nearest, types_of, with_fields
from cifarray.spec.profile import Profile
from cifarray.spec.sweep import Domain
from cifarray.store import Store
from cifarray.training.network_checks import check_network
from cifarray.training.optimizers import check_optimizer
from cifarray.training.schedules import build_schedule, check_schedule
from cifarray.training.trials import case_values, decides, most_epochs, trial_job, unread_fields

VERSIONS_OF = ("torch", "torchvision", "ray", "numpy", "pyarrow", "timm", "optuna")
NOT_SWEEPABLE = {
    "name": "it is only the job's name or description",
    "kind": "a trial is a train job",
    "description": "it does not change the training",
    "dataset": "trials on different rows cannot be compared",
    "augment.preset": "it is an abbreviation for other fields, which can be swept",
    "validation": "trials evaluated on different rows cannot be compared",
    "sweep": "a sweep cannot vary its own settings",
    "train.compile": "it changes the speed, not the result",
    "train.channels_last": "it changes the speed, not the result",
    "model.weights": "all trials start from the same file of weights, which the run stores",
    "model.features": "it changes the speed, not the result",
    "train.histograms": "it only records the training",
}
LENGTHS = ("train.epochs", "train.steps", "train.global_batch_size")
"""Fields that a schedule has to fit."""
MOST_COMBINATIONS = 4096
"""Maximum number of combinations checked together; with more, each value is checked alone."""
OPTUNA_SEEDS = 2**32


def check(
    job: Job,
    profile: Profile,
    workers: int | None = None,
    code: Path | None = None,
    store: Store | None = None,
) -> None:
    """Refuse a job that cannot run with this profile, before any row is read.

    The store says what images of the user are like; the catalog knows the other datasets.

    Raises: JobError, StoreError.
    """
    known = known_dataset(job.dataset.name, store)
    _check_dataset(job, known)
    world_size = check_workers(job, profile, workers)
    _check_metrics(job)
    tried = list(candidates(job))
    for candidate in tried:
        _check_metrics(candidate)
        shape = held_shape(known.name, known.shape, candidate.preprocess)
        check_model(candidate.model, candidate.preprocess.seen(shape), code)
        check_optimizer(candidate.optimizer)
        check_schedule(candidate.schedule)
        check_images(candidate.augment, candidate.preprocess, shape)
        _check_workers_share(candidate, profile, world_size)
    if code is not None and not any(is_user_network(candidate.model.name) for candidate in tried):
        raise JobError(
            f"the network {job.model.name} needs no code; leave --code out, or name yours with "
            "--set model.name=package.module:factory"
        )


def _check_dataset(job: Job, known: KnownDataset) -> None:
    if job.dataset.labels == "coarse" and not known.coarse_classes:
        having = sorted(name for name, other in DATASETS.items() if other.coarse_classes)
        raise JobError(
            f"dataset {known.name} has no coarse labels; those that have: {', '.join(having)}"
        )
    learned_labels(job.dataset, known)
    for part in (job.dataset.archive_part, job.validation.archive_part):
        if part is not None:
            check_part(part, known)


def check_rows(job: Job, manifest: Manifest, selection: Selection, world_size: int) -> None:
    """Refuse a job that cannot run on the prepared dataset. Raises: JobError."""
    learned_labels(job.dataset, manifest)
    rows = len(selection.positions["train"])
    for candidate in candidates(job):
        shape = held_shape(manifest.name, manifest.shape, candidate.preprocess)
        check_images(candidate.augment, candidate.preprocess, shape)
        batch = candidate.train.global_batch_size
        if batch > rows:
            raise JobError(
                f"train.global_batch_size {batch} is more than the {rows} training rows; lower it"
            )
        steps_per_epoch = -(-rows // batch)
        epochs, steps = candidate.train.epochs, candidate.train.steps
        total = min(n for n in (epochs and epochs * steps_per_epoch, steps) if n is not None)
        build_schedule(candidate.schedule, total, steps_per_epoch)
        if not is_user_network(candidate.model.name):  # whose code runs on the workers alone
            shard_rows = selection.shard_rows("train", world_size)
            check_network(candidate, shard_rows, shape, len(selection.labels.classes))


def check_workers(job: Job, profile: Profile, workers: int | None) -> int:
    """How many workers a training of the job has. Raises: JobError if they do not fit."""
    wanted = {"--workers": profile.workers if workers is None else workers}
    if job.sweep:
        wanted["sweep.workers_per_trial"] = job.sweep.workers_per_trial
    for what, number in wanted.items():
        if number > profile.workers:
            raise JobError(
                f"{what} {number} is more than the {profile.workers} workers of profile "
                f"{profile.name}"
            )
        if number < 1:
            raise JobError(f"{what} {number} is too few; give 1 to {profile.workers}")
    return job.sweep.workers_per_trial if job.sweep else wanted["--workers"]


def versions() -> dict[str, str]:
    """Versions of what the numbers of a run depend on."""
    found = {"python": platform.python_version(), "cifarray": __version__}
    for name in VERSIONS_OF:
        found[name] = importlib.metadata.version(name)
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def utc_now() -> str:
    """The time of submission, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def select(store: Store, manifest: Manifest, job: Job, world_size: int) -> Selection:
    """The job's rows of a prepared dataset, checked. Raises: JobError."""
    selection = select_rows(store, manifest, job)
    check_rows(job, manifest, selection, world_size)
    return selection


def _check_metrics(job: Job) -> None:
    named: dict[str, str] = {}
    if job.train.early_stopping:
        named["train.early_stopping.metric"] = job.train.early_stopping.metric
    if job.sweep:
        named["sweep.metric"] = job.sweep.metric
    for field, metric in named.items():
        if metric not in OBJECTIVES:
            raise JobError(f"no epoch reports {field} '{metric}'; {nearest(metric, OBJECTIVES)}")


def _check_workers_share(job: Job, profile: Profile, world_size: int) -> None:
    if job.train.global_batch_size < world_size:
        raise JobError(
            f"train.global_batch_size {job.train.global_batch_size} is less than the "
            f"{world_size} workers that share it; raise it or use fewer workers"
        )
    if job.train.sync_batchnorm and not profile.gpus_per_worker:
        raise JobError(
            "train.sync_batchnorm requires GPU workers, because torch has no SyncBatchNorm for "
            f"CPUs; profile {profile.name} has none: set it to false"
        )


def _commit() -> str | None:
    """The checkout's commit, where cifarray runs from one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def candidates(job: Job) -> Iterable[Job]:
    """The job itself, or train jobs that together cover every value that a sweep may try.

    Fields that depend on each other appear in every combination. Raises: JobError.
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
    """Warnings about settings that are allowed but probably not intended."""
    rule = job.sweep.scheduler if job.sweep else None
    most = most_epochs(job)
    if rule is None or rule.name != "asha" or most is None or rule.grace_epochs < most:
        return []
    return [
        f"sweep.scheduler.grace_epochs {rule.grace_epochs} is not below the {most} epochs of the "
        "longest trial: asha will not stop any trial early"
    ]


def _cases(job: Job) -> list[Job]:
    """The trial of each case. Raises: JobError for a field that its own case leaves unread."""
    assert job.sweep is not None
    trials = []
    for number, (given, case) in enumerate(zip(job.sweep.cases, case_values(job), strict=True)):
        trial = with_fields(job.model_copy(update={"kind": "train", "sweep": None}), case)
        if unread := sorted(given.keys() & set(unread_fields(trial))):
            raise JobError(
                f"sweep.cases.{number} sets {unread[0]}, which its optimizer, schedule and "
                "network do not use"
            )
        trials.append(trial_job(job, case))
    return trials


def _groups(space: Mapping[str, Domain]) -> list[list[str]]:
    """The swept fields; those that may not fit together are in one group."""
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
        raise JobError("sweep.search grid requires at least one field of kind grid in sweep.space")
    if search != "grid" and "grid" in kinds:
        raise JobError(f"sweep.search {search} takes no grid field; use choice, or search=grid")
    if search == "optuna" and job.sweep.seed >= OPTUNA_SEEDS:
        raise JobError(
            f"sweep.seed {job.sweep.seed} is too large for optuna; give one below {OPTUNA_SEEDS}"
        )
    if job.sweep.scheduler.name == "asha" and most_epochs(job) is None:
        raise JobError(
            "sweep.scheduler asha requires the maximum number of epochs of a trial; set "
            "train.epochs (train.steps may be set too), or choose median or none"
        )
    if job.model.weights != "none" and "model.name" in job.sweep.fields:
        raise JobError(
            f"model.name cannot be swept together with model.weights {job.model.weights}, which "
            "fit one network only; sweep each network separately"
        )
    for path in job.sweep.fields:
        check_field(Job, path)
        if within := [other for other in job.sweep.fields if other.startswith(f"{path}.")]:
            raise JobError(
                f"{path} and {within[0]}, which is part of it, cannot both be swept; sweep "
                "either the whole record or its fields"
            )
        for prefix, reason in NOT_SWEEPABLE.items():
            if path == prefix or path.startswith(f"{prefix}."):
                raise JobError(f"{path} cannot be swept: {reason}")
    for path, domain in job.sweep.space.items():
        kinds_of_value = types_of(Job, path)
        if domain.kind in ("uniform", "loguniform") and kinds_of_value & {int, bool}:
            raise JobError(
                f"{path} takes whole numbers, and {domain.kind} draws fractions; use randint or "
                "choice"
            )


def _refuse_unread(job: Job, first: dict[str, Any]) -> None:
    """Refuse a field that is set or swept though no trial could ever read it."""
    assert job.sweep is not None
    base = job.model_copy(update={"kind": "train", "sweep": None})
    trials = [with_fields(base, first | names) for names in _names(job.sweep.space)]
    never = sorted(set.intersection(*(set(unread_fields(trial)) for trial in trials)))
    if never:
        raise JobError(
            f"no trial uses {never[0]}: no optimizer, schedule or network of the sweep reads it"
        )
