"""The two threads that accompany a running attempt: one reports its progress, one bounds its time.

The progress goes into the run's status: epochs or trials done, and the best value so far. A run of
the long-lived RayCluster, which has no deadline of its own, is ended when it takes too long.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cifarray.errors import (
    KeyMissingError,
    LeaseLostError,
    RunFailedError,
    StoreDamagedError,
    StoreError,
)
from cifarray.metrics import best_epoch
from cifarray.runs import Attempt, read_metrics
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.store.layout import FAILURES, TRIALS, WAITING_FILE
from cifarray.store.patience import Wait, in_the_log
from cifarray.timers import every
from cifarray.training.trials import TrialRecord, best_trial, read_trials, trial_count

POLL_S = 3.0
Progress = tuple[dict[str, Any], dict[str, Any] | None]
"""(progress, best), as a run's status holds them."""


class WaitsFor:
    """What a driver waits for: capacity before its workers start, or its store."""

    def __init__(self) -> None:
        self._capacity = self._store = ""

    def __str__(self) -> str:
        return self._capacity or self._store

    def capacity(self, text: str) -> None:
        """Record what is missing before the workers can start; "" for nothing."""
        self._capacity = text

    def store(self, wait: Wait | None) -> None:
        """Take a wait for the store, or None once it is over."""
        in_the_log(wait)
        self._store = str(wait or "").removeprefix("waiting for ")


@contextmanager
def watched(attempt: Attempt, spec: RunSpec, waits_for: WaitsFor) -> Iterator[None]:
    """Read the attempt's records in the background and write what changed to the run's status.

    Ends what the main thread does inside as SIGTERM does, once another attempt is in charge.
    Raises: LeaseLostError if it has.
    """
    reported: Progress | None = None
    lost: LeaseLostError | None = None
    over = False

    def report() -> bool:
        """False once the attempt writes nothing any more."""
        nonlocal reported, lost
        try:
            progress, best = read_progress(attempt.run.store, attempt.prefix, spec.job)
            waits = str(waits_for) or workers_wait_for(attempt.run.store, attempt.prefix)
            current = progress | ({"waits_for": waits} if waits else {}), best
            if current != reported or attempt.lost.is_set():
                attempt.heartbeat(*current)
                reported = current
        except LeaseLostError as error:
            if not over:
                lost = error
                os.kill(os.getpid(), signal.SIGTERM)
            return False
        except StoreError:  # a store that is away is asked again
            pass
        return True

    try:
        with every(POLL_S, report, f"progress of {spec.run_id}", at_end=True):
            try:
                yield
            finally:
                over = True
    except (KeyboardInterrupt, SystemExit) as ended:  # the latter while ray.init() runs
        if lost:
            raise lost from ended
        raise


def read_progress(store: Store, prefix: str, job: Job) -> Progress:
    """How far an attempt is, from its records."""
    metric = job.metric
    if job.sweep is None:
        records = read_metrics(store, prefix)
        progress = {"unit": "epochs", "done": len(records), "total": job.train.epochs}
        if records:
            progress["last"] = records[-1]
        return progress | failures_of(store, prefix), best_so_far(records, metric)
    trials = read_trials(store, f"{prefix}/{TRIALS}", {}, job.train.epochs)
    states = [trial.state for trial in trials]
    progress = {
        "unit": "trials",
        "done": sum(state in ("finished", "stopped early") for state in states),
        "total": trial_count(job),
        "running": states.count("unfinished"),
        "stopped_early": states.count("stopped early"),
        "epochs": sum(len(trial.history) for trial in trials),
    }
    return progress, _best_of(best_trial(trials, metric), metric)


def failures_of(store: Store, prefix: str) -> dict[str, Any]:
    """How often workers were replaced in this attempt, and why the last time."""
    found = sorted(entry.key for entry in store.list(f"{prefix}/{FAILURES}"))
    return {"failures": len(found), "last_failure": store.read_json(found[-1])} if found else {}


def workers_wait_for(store: Store, prefix: str) -> str:
    """What the attempt's workers say that they wait for; empty if for nothing."""
    try:
        found = store.read_json(f"{prefix}/{WAITING_FILE}")
    except (KeyMissingError, StoreDamagedError):
        return ""
    waits_for = found.get("waits_for") if isinstance(found, dict) else None
    return waits_for.removeprefix("waiting for ") if isinstance(waits_for, str) else ""


def best_so_far(records: list[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """The best value of a metric over some records, and its epoch, as a status holds them."""
    record = best_epoch(records, metric)
    if record is None:
        return None
    return {"metric": metric, "value": record[metric], "epoch": record["epoch"]}


def _best_of(trial: TrialRecord | None, metric: str) -> dict[str, Any] | None:
    if trial is None:
        return None
    best = best_so_far(trial.history, metric)
    return best and {**best, "trial_id": trial.id, "params": trial.params}


def limit_s(profile: Profile) -> float | None:
    """How long the driver lets an attempt take; None if a RayJob's deadline ends it."""
    spec = profile.kubernetes
    return float(spec.max_run_s) if spec is not None and not spec.has_cluster_per_run else None


@contextmanager
def in_time(profile: Profile) -> Iterator[None]:
    """Bound what the main thread does inside to the profile's max_run_s.

    Raises: RunFailedError if it takes longer.
    """
    seconds = limit_s(profile)
    if seconds is None:
        yield
        return
    with within(seconds, f"the run took longer than kubernetes.max_run_s ({seconds:.0f} s)"):
        yield


@contextmanager
def within(seconds: float, sentence: str) -> Iterator[None]:
    """End what the main thread does inside as SIGTERM does, once it has taken this long.

    Raises: RunFailedError with the sentence if it has.
    """
    lock = threading.Lock()
    over = late = False

    def end() -> None:
        nonlocal late
        with lock:
            if not over:
                late = True
                os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            with lock:
                over = True
            timer.cancel()
    except (KeyboardInterrupt, SystemExit) as ended:  # the latter while ray.init() runs
        if late:
            raise RunFailedError(sentence) from ended
        raise
