"""The trials of a sweep: the job of each, and what they left in the store.

Known without torch: submitting a sweep asks which jobs it will try, and which fields these read.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifarray.errors import KeyMissingError, StoreDamagedError
from cifarray.metrics import DEFAULT_OBJECTIVE, best, best_epoch
from cifarray.models.registry import find_entry
from cifarray.runs import read_metrics
from cifarray.spec.job import Job, ModelSpec
from cifarray.spec.load import read_field, with_fields
from cifarray.spec.profile import Profile
from cifarray.spec.record import Record
from cifarray.spec.sweep import SweepSpec
from cifarray.store import Store
from cifarray.store.layout import ENDED_FILE, TRIAL_FILE
from cifarray.training.optimizers import GROUP_FIELDS, OPTIMIZERS
from cifarray.training.schedules import SCHEDULES, WARMUP_FIELDS

SWITCHES = frozenset({"preprocess.normalize", "augment.rotation", "augment.shift", "augment.zoom"})
"""Fields that, like names, decide which others are read."""
MODEL_DEFAULTS = {
    f"model.{name}": field.get_default(call_default_factory=True)
    for name, field in ModelSpec.model_fields.items()
}
"""Default values of these fields; in other sections the default is None."""


@dataclass(frozen=True)
class TrialRecord:
    """One configuration of a sweep and its result."""

    id: str
    params: dict[str, Any]
    """Dotted job field -> value."""
    history: list[dict[str, Any]]
    state: str
    """finished, stopped early, failed or unfinished."""
    error: str | None = None

    def best(self, metric: str) -> float | None:
        """The best value of a metric over the epochs."""
        record = best_epoch(self.history, metric)
        return None if record is None else float(record[metric])

    def as_dict(self) -> dict[str, Any]:
        """The trial as the report takes it."""
        return {
            "id": self.id,
            "params": self.params,
            "epochs": len(self.history),
            "state": self.state,
            DEFAULT_OBJECTIVE: self.best(DEFAULT_OBJECTIVE),
            "history": self.history,
            "error": self.error,
        }


def sweep_of(job: Job) -> SweepSpec:
    """The sweep of a job of kind tune."""
    assert job.sweep is not None
    return job.sweep


def concurrency(job: Job, profile: Profile) -> int:
    """How many trials run at once: what the job says, at most what the profile's workers hold."""
    spec = sweep_of(job)
    capacity = max(1, profile.workers // spec.workers_per_trial)
    samples = len(spec.cases) or (spec.trials if spec.search != "grid" else capacity)
    return min(capacity, spec.max_concurrent or capacity, samples)


def trial_count(job: Job) -> int:
    """How many trials a sweep makes."""
    spec = sweep_of(job)
    if spec.cases:
        return len(spec.cases)
    return spec.trials * math.prod(len(domain.grid or (None,)) for domain in spec.space.values())


def trial_job(job: Job, params: Mapping[str, Any]) -> Job:
    """The train job of one trial: the sweep's job with the trial's values in their fields.

    A field that the trial's optimizer, schedule or network does not read is left unset, so that
    `optimizer.momentum` can be swept beside `optimizer.name`.
    """
    trial = with_fields(job.model_copy(update={"kind": "train", "sweep": None}), params)
    return unset(trial, unread_fields(trial))


def decides(path: str) -> bool:
    """Whether another value of the field at this path may leave other fields unread."""
    return path.endswith(".name") or path in SWITCHES


def unread_fields(job: Job) -> list[str]:
    """Dotted paths of fields that are set, but that nothing chosen by this job reads.

    Names that are in no registry, and user-defined networks, count as reading everything.
    """
    reads = {"augment": job.augment.reads, "preprocess": job.preprocess.reads}
    if job.optimizer.name in OPTIMIZERS:
        reads["optimizer"] = OPTIMIZERS[job.optimizer.name].fields | GROUP_FIELDS
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


def read_trials(
    store: Store, prefix: str, errors: Mapping[str, str], total_epochs: int | None
) -> list[TrialRecord]:
    """Every trial below a folder, in the order in which they were made."""
    trials = []
    for folder in store.folders(prefix):
        try:
            written = store.read_json(f"{prefix}/{folder}/{TRIAL_FILE}")
        except (KeyMissingError, StoreDamagedError):
            continue
        history = read_metrics(store, f"{prefix}/{folder}")
        own_total = written["params"].get("train.epochs", total_epochs)
        ended = _ending(store, f"{prefix}/{folder}")
        error = errors.get(folder) or ended.get("error")
        state = _state(ended, error, len(history), own_total)
        trials.append(TrialRecord(folder, written["params"], history, state, error))
    return sorted(trials, key=lambda trial: trial.id)


def best_trial(trials: Sequence[TrialRecord], metric: str) -> TrialRecord | None:
    """The trial that reached the best value of the metric; of equals the first."""
    return best(trials, metric, lambda trial: trial.best(metric))


def case_values(job: Job) -> list[dict[str, Any]]:
    """Every case of a sweep with a value for each field that any of them varies.

    A field within a record that the job leaves off has a value only where a case gives one.
    """
    spec = sweep_of(job)
    own = {
        path: _plain(read_field(job, path))
        for path in spec.fields
        if "." not in path or read_field(job, path.rpartition(".")[0]) is not None
    }
    return [own | case for case in spec.cases]


def _plain(value: Any) -> Any:
    """The value of a field as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, Record) else value


def most_epochs(job: Job) -> int | None:
    """The epochs of a sweep's longest trial; None if a trial's steps alone limit it."""
    domain = job.sweep.space.get("train.epochs") if job.sweep else None
    limits = domain.examples if domain else (job.train.epochs,)
    if job.sweep and "train.epochs" in job.sweep.fields and not domain:
        limits = tuple(case["train.epochs"] for case in case_values(job))
    return None if None in limits else max(limits)


def _ending(store: Store, prefix: str) -> dict[str, Any]:
    """What a trial, or Tune in its place, wrote at its end; empty while it runs."""
    try:
        ended: dict[str, Any] = store.read_json(f"{prefix}/{ENDED_FILE}")
        return ended
    except KeyMissingError:
        return {}


def _state(ended: Mapping[str, Any], error: str | None, epochs: int, total: int | None) -> str:
    if error is not None:
        return "failed"
    if ended.get("state") == "finished" or (total is not None and epochs >= total):
        return "finished"
    return str(ended.get("state") or "unfinished")
