"""Delete runs, and the datasets that no remaining run was trained on."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cifarray.errors import InputError, KeyMissingError, StoreDamagedError
from cifarray.metrics import OBJECTIVES, ranked
from cifarray.runs import lease
from cifarray.runs.listing import RunSummary, in_parallel, list_runs, summaries
from cifarray.runs.liveness import NO_EVIDENCE, Examined, examine, refuse_live
from cifarray.runs.run import Run
from cifarray.runs.status import ENDED, Status, parse_time
from cifarray.store import Entry, Store
from cifarray.store.layout import (
    DATASETS,
    LEASE_FILE,
    SPEC_FILE,
    STATUS_FILE,
    dataset_prefix,
    latest_key,
    locate_dataset,
    manifest_key,
)

UNFINISHED_AFTER = timedelta(days=1)
"""For this long, a dataset without a manifest may still be in preparation."""


@dataclass(frozen=True)
class UnusedDataset:
    """A version of a dataset that is not in use."""

    name: str
    digest12: str
    size_bytes: int

    @property
    def prefix(self) -> str:
        """Its folder in the store."""
        return dataset_prefix(self.name, self.digest12)


@dataclass(frozen=True)
class PrunePlan:
    """What would be deleted, and why some things are kept."""

    store: Store
    runs: list[RunSummary]
    datasets: list[UnusedDataset]
    remarks: list[str]
    dead: Mapping[str, Examined] = field(default_factory=dict)
    """Of the runs those that have not ended, by id, as they were found to be dead."""

    @property
    def size_bytes(self) -> int:
        """Bytes that it frees."""
        runs = sum(run.size_bytes for run in self.runs)
        return runs + sum(dataset.size_bytes for dataset in self.datasets)


def delete_run(run: Run, dead: Examined | None = None) -> None:
    """Delete everything of a run. Raises: InputError if somebody works on it.

    One that has not ended is deleted only if it was found to be `dead` and has not changed since.
    Its job and status go last: a deletion that was cut leaves a run that can be deleted again.
    """
    _end_attempt(run, dead)
    last = {run.key(SPEC_FILE), run.key(STATUS_FILE)}
    for folder in run.store.folders(run.prefix):
        run.store.delete_folder(run.key(folder))
    inside = (entry.key for entry in run.store.list(run.prefix))
    run.store.delete(key for key in inside if key not in last)
    run.store.delete_folder(run.prefix)


def _end_attempt(run: Run, dead: Examined | None) -> None:
    """Take the lease away, so that a remaining attempt notices."""
    status, key = run.status(), run.key(LEASE_FILE)
    if status.state in ENDED:
        lease.take_away(run.store, key)
        return
    refuse_live(dead or Examined(run, status, ""))
    assert dead is not None
    unmoved = status == dead.status
    if unmoved and dead.tag is not None:  # as one step with seeing that it has not moved
        unmoved = lease.take_away_if(run.store, key, dead.attempt, dead.tag)
    if not unmoved:
        raise InputError(
            f"run {run.id} is still running; stop it first with `cifarray stop {run.id}`"
        )


Examine = Callable[[Iterable[Run]], list[Examined]]


def _without_evidence(runs: Iterable[Run]) -> list[Examined]:
    return examine(runs, lambda run, status: NO_EVIDENCE)


def plan_prune(
    store: Store,
    older_than: timedelta | None = None,
    keep_best: int | None = None,
    examine_runs: Examine = _without_evidence,
) -> PrunePlan:
    """Choose what to delete; with neither limit only unused datasets.

    A run is deleted if it is over, older than `older_than` if that is given, and not among the
    `keep_best` best of its job if that is given. `examine_runs` tells which of those that have not
    ended are dead.
    """
    everything = summaries(store)
    chosen: list[RunSummary] = []
    if older_than is not None or keep_best is not None:
        best = _best_of_each_job(everything, keep_best or 0)
        chosen = [
            summary
            for summary in everything
            if summary.run.id not in best
            and (older_than is None or _age(summary.status) > older_than)
        ]
    open_ = [summary.run for summary in chosen if summary.status.state not in ENDED]
    dead = {each.run.id: each for each in examine_runs(open_) if each.cause} if open_ else {}
    gone = [s for s in chosen if s.status.state in ENDED or s.run.id in dead]
    ids = {summary.run.id for summary in gone}
    remaining = [summary.run for summary in everything if summary.run.id not in ids]
    datasets, remarks = _unused_datasets(store, remaining)
    return PrunePlan(store, gone, datasets, remarks, dead)


def execute_plan(plan: PrunePlan, done: Callable[[str], None] | None = None) -> list[str]:
    """Delete what the plan names, except what has come into use since; says why that is kept."""
    tell = done or (lambda _: None)
    remarks = []
    for summary in plan.runs:
        try:
            delete_run(summary.run, plan.dead.get(summary.run.id))
        except InputError as error:
            remarks.append(str(error))
            continue
        tell(summary.run.id)
    still_unused = _unused_datasets(plan.store, list_runs(plan.store))[0]
    for dataset in plan.datasets:
        if dataset.prefix not in {unused.prefix for unused in still_unused}:
            remarks.append(f"{dataset.prefix} is now in use and is kept")
            continue
        plan.store.delete_folder(dataset.prefix)
        tell(dataset.prefix)
    return remarks


def _best_of_each_job(runs: Iterable[RunSummary], keep: int) -> set[str]:
    jobs: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for summary in runs:
        metric = (summary.status.best or {}).get("metric")
        if metric in OBJECTIVES:
            jobs[summary.status.job, metric].append(summary)
    kept: set[str] = set()
    for (_, metric), of_job in jobs.items():
        in_order = ranked(of_job, metric, lambda summary: (summary.status.best or {}).get("value"))
        kept.update(summary.run.id for summary in in_order[:keep])
    return kept


def _age(status: Status) -> timedelta:
    times = (status.ended_at, status.heartbeat_at, status.submitted_at)
    last = next((time for text in times if (time := parse_time(text))), None)
    return datetime.now(UTC) - last if last else timedelta.max


def _unused_datasets(store: Store, remaining: list[Run]) -> tuple[list[UnusedDataset], list[str]]:
    """Versions that are not the latest and that no remaining run names."""
    versions: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in store.list(DATASETS):
        if version := locate_dataset(entry.key):
            versions[version].append(entry)
    candidates = []
    for (name, digest12), entries in versions.items():
        size = sum(entry.size_bytes for entry in entries)
        if not _is_in_use(store, name, digest12, entries):
            candidates.append(UnusedDataset(name, digest12, size))
    if not candidates:
        return [], []
    named = in_parallel(_dataset_of, remaining)
    unreadable = [run.id for run, dataset in zip(remaining, named, strict=True) if not dataset]
    if unreadable:
        return [], [
            f"datasets are kept, since job.yaml of run {unreadable[0]} cannot be read and may "
            "name one"
        ]
    return [item for item in candidates if (item.name, item.digest12) not in named], []


def _is_in_use(store: Store, name: str, digest12: str, entries: list[Entry]) -> bool:
    """Whether it is the latest version, or one that is being prepared."""
    try:
        latest = store.read(latest_key(name)).decode("ascii", "replace").strip()
    except KeyMissingError:
        latest = ""
    if latest and latest[:12] == digest12:
        return True
    newest = max(entry.modified for entry in entries)
    whole = any(entry.key == manifest_key(name, digest12) for entry in entries)
    return not (whole and latest) and datetime.now(UTC) - newest < UNFINISHED_AFTER


def _dataset_of(run: Run) -> tuple[str, str] | None:
    try:
        spec = run.spec()
    except (KeyMissingError, StoreDamagedError):
        return None
    return spec.job.dataset.name, spec.dataset_digest[:12]
