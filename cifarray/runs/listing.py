"""All runs of a store at a glance, in as few requests as it takes."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from cifarray.runs.run import Run, is_run_id, submitted_order
from cifarray.runs.status import Status
from cifarray.store import Store
from cifarray.store.layout import RUNS, locate

READ_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RunSummary:
    """A run with its status and the bytes that it takes in the store."""

    run: Run
    status: Status
    size_bytes: int


def list_runs(store: Store) -> list[Run]:
    """Every run of the store, newest first; one listing."""
    return _newest_first(store, store.folders(RUNS))


def summaries(store: Store) -> list[RunSummary]:
    """Every run with status and size, newest first; one listing and one read per run."""
    sizes: dict[str, int] = defaultdict(int)
    for entry in store.list(RUNS):
        if found := locate(entry.key):
            sizes[found.place.run] += entry.size_bytes
    runs = _newest_first(store, sizes)
    statuses = in_parallel(Run.status, runs)
    return [
        RunSummary(run, status, sizes[run.id]) for run, status in zip(runs, statuses, strict=True)
    ]


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The function of each item, in order; the store is waited for by several threads."""
    given = list(items)
    if len(given) < 2:
        return [function(item) for item in given]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(function, given))


def _newest_first(store: Store, names: Iterable[str]) -> list[Run]:
    ids = sorted((name for name in names if is_run_id(name)), key=submitted_order, reverse=True)
    return [Run(store, name) for name in ids]
