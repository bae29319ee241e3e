"""Everything that job, profile and manifest can tell before a node starts; no torch, no ray."""

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cifarray import __version__
from cifarray.backends.checks_of_sweeps import candidates
from cifarray.data.catalog import DATASETS
from cifarray.data.image_checks import check_images, held_shape
from cifarray.data.known import KnownDataset, known_dataset
from cifarray.data.labels import learnt_labels
from cifarray.data.manifest import Manifest
from cifarray.data.selection import Selection, check_part, select_rows
from cifarray.errors import JobError
from cifarray.metrics import OBJECTIVES
from cifarray.models.registry import check_model, is_own
from cifarray.spec.job import Job
from cifarray.spec.load import nearest
from cifarray.spec.profile import Profile
from cifarray.store import Store
from cifarray.training.lone_rows import check_lone_rows
from cifarray.training.optimizers import check_optimizer
from cifarray.training.schedules import build_schedule, check_schedule

VERSIONS_OF = ("torch", "torchvision", "ray", "numpy", "pyarrow", "timm", "optuna")


def check(
    job: Job,
    profile: Profile,
    workers: int | None = None,
    code: Path | None = None,
    store: Store | None = None,
) -> None:
    """Refuse what the job and the profile show to be impossible, before any row is read.

    The store says what images of the user's own are like; the catalog knows the other datasets.

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
    if code is not None and not any(is_own(candidate.model.name) for candidate in tried):
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
    learnt_labels(job.dataset, known)
    for part in (job.dataset.archive_part, job.validation.archive_part):
        if part is not None:
            check_part(part, known)


def check_rows(job: Job, manifest: Manifest, selection: Selection, world_size: int) -> None:
    """Refuse what the prepared dataset shows to be impossible. Raises: JobError."""
    learnt_labels(job.dataset, manifest)
    rows = len(selection.positions["train"])
    for candidate in candidates(job):
        shape = held_shape(manifest.name, manifest.shape, candidate.preprocess)
        check_images(candidate.augment, candidate.preprocess, shape)
        batch = candidate.train.global_batch_size
        if batch > rows:
            raise JobError(
                f"train.global_batch_size {batch} is above the {rows} rows that are left to train "
                "on; lower it"
            )
        steps_per_epoch = -(-rows // batch)
        epochs, steps = candidate.train.epochs, candidate.train.steps
        total = min(n for n in (epochs and epochs * steps_per_epoch, steps) if n is not None)
        build_schedule(candidate.schedule, total, steps_per_epoch)
        if not is_own(candidate.model.name):  # whose code runs on the workers alone
            shard_rows = selection.shard_rows("train", world_size)
            check_lone_rows(candidate, shard_rows, shape, len(selection.labels.classes))


def check_workers(job: Job, profile: Profile, workers: int | None) -> int:
    """How many workers a training of the job has. Raises: JobError if they do not fit."""
    wanted = {"--workers": profile.workers if workers is None else workers}
    if job.sweep:
        wanted["sweep.workers_per_trial"] = job.sweep.workers_per_trial
    for what, number in wanted.items():
        if number > profile.workers:
            raise JobError(
                f"{what} {number} is more than the {profile.workers} that profile {profile.name} "
                "holds"
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
            f"train.global_batch_size {job.train.global_batch_size} is below the {world_size} "
            "workers that share it; raise it or take fewer workers"
        )
    if job.train.sync_batchnorm and not profile.gpus_per_worker:
        raise JobError(
            "train.sync_batchnorm needs GPU workers, since torch has no SyncBatchNorm on CPUs; "
            f"profile {profile.name} has none: set it to false"
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
