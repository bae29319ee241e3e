"""An HTTP server with metrics of a store's runs for Prometheus."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cifarray.errors import InputError, StoreError
from cifarray.metrics import OBJECTIVES, STORE, TRAIN_LOSS, Sample, finite
from cifarray.runs import ENDED, Run, RunState, Status, cause_of_death, heartbeat_age_s, list_runs
from cifarray.runs.liveness import HeartbeatWatch, lease_evidence, look_s
from cifarray.runs.status import parse_time
from cifarray.store import Store
from cifarray.timers import every

FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
STATES = (*get_args(RunState), "lost")
RECENT_S = 3600.0
"""A run's own series are exported until this long after its end; Prometheus keeps older ones."""
LONGEST_GAP = 3.0
"""Intervals between two readings of a heartbeat, above which it counts as unwatched."""
ENDED_AGAIN_S = 300.0
"""The status of a run that has ended is read again after this; `cifarray resume` may change it."""


@dataclass(frozen=True)
class Seen:
    """What was read of a run, and when."""

    status: Status
    state: str
    """As it is shown to people: a run that is recorded as running and dead is lost."""
    gpus: float | None
    """Of all its workers together; None if job.yaml cannot be read."""
    at: datetime

    @property
    def ended_at(self) -> datetime | None:
        """When it ended; None for one that has not, and where nothing says when."""
        return parse_time(self.status.ended_at) if self.state in ENDED else None

    @property
    def heartbeat_age_s(self) -> float | None:
        """How long ago a running run's heartbeat was, by two clocks; None for any other."""
        if self.status.state != "running" or parse_time(self.status.heartbeat_at) is None:
            return None
        return heartbeat_age_s(self.status, self.at) or 0.0

    @property
    def gpu_seconds(self) -> float:
        """GPUs times the time from the run's start to its end or last heartbeat.

        The time between two attempts counts, though a cluster may have given its GPUs back then.
        """
        began = parse_time(self.status.started_at)
        last = self.at if self.state == "running" else parse_time(self.status.heartbeat_at)
        end = self.ended_at or last
        if began is None or end is None:
            return 0.0
        return max(0.0, (end - began).total_seconds()) * (self.gpus or 0.0)


def run_samples(run_id: str, seen: Seen) -> Iterator[Sample]:
    """A run's own series."""
    status = seen.status
    labels = {"run": run_id, "job_name": status.job}
    yield Sample("cifarray_run_attempts", status.attempts, labels)
    yield Sample("cifarray_run_gpu_seconds", seen.gpu_seconds, labels)
    if (age_s := seen.heartbeat_age_s) is not None:
        yield Sample("cifarray_run_heartbeat_age_seconds", age_s, labels)
    best = status.best or {}
    metric, value = best.get("metric"), finite(best.get("value"))
    if metric in OBJECTIVES and value is not None:
        yield Sample("cifarray_run_best", value, {**labels, "metric": str(metric)})
    progress = status.progress or {}
    epochs = finite(progress.get("done" if progress.get("unit") == "epochs" else "epochs"))
    if epochs is not None:
        yield Sample("cifarray_run_epochs", epochs, {**labels, "kind": status.kind})
    last = progress.get("last")
    if isinstance(last, dict) and TRAIN_LOSS in last:
        is_nan = finite(last[TRAIN_LOSS]) is None
        yield Sample("cifarray_run_loss_is_nan", float(is_nan), labels)


def job_samples(runs: Iterable[Seen]) -> Iterator[Sample]:
    """What all the runs of each job have used, and when the last of them finished."""
    used: dict[str, float] = defaultdict(float)
    finished: dict[str, float] = {}
    for seen in runs:
        job = seen.status.job
        used[job] += seen.gpu_seconds
        if seen.state == "finished" and seen.ended_at is not None:
            finished[job] = max(finished.get(job, 0.0), seen.ended_at.timestamp())
    for job, seconds in used.items():
        yield Sample("cifarray_job_gpu_seconds", seconds, {"job_name": job})
    for job, at in finished.items():
        yield Sample("cifarray_job_last_success_timestamp_seconds", at, {"job_name": job})


class StoreWatch:
    """A store's runs. One thread reads; any thread may get `samples`.

    Reads one object after the other: a round may take its time, and loads the store little. A run
    whose heartbeat does not move from round to round is lost.
    """

    def __init__(
        self,
        store: Store,
        interval_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._watch = HeartbeatWatch(LONGEST_GAP * interval_s, clock)
        self._seen: Mapping[str, Seen] = {}
        self._errors = 0
        self._last_error: StoreError | None = None
        self._last_read_at: datetime | None = None
        self._of_runs: tuple[Sample, ...] = ()
        self._samples: tuple[Sample, ...] = ()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """As of the last round; none before the first."""
        return self._samples

    def read(self) -> StoreError | None:
        """One round: why something of the store could not be read, or None.

        What cannot be read stays as it was, ages too: a store that is away stalls no run.
        """
        begun = time.monotonic()
        self._last_error = None
        try:
            runs = list_runs(self._store)
        except StoreError as error:
            self._failed(error)
        else:
            looked_at = ((run.id, self._look(run)) for run in runs)
            self._seen = {run_id: seen for run_id, seen in looked_at if seen is not None}
            self._watch.forget(run.id for run in runs)
            self._of_runs = tuple(self._run_samples())
        if self._last_error is None:
            self._last_read_at = datetime.now(UTC)
        self._samples = (*self._of_runs, *self._reading_samples(time.monotonic() - begun))
        return self._last_error

    def _look(self, run: Run) -> Seen | None:
        known, now = self._seen.get(run.id), datetime.now(UTC)
        if known and known.state in ENDED and (now - known.at).total_seconds() < ENDED_AGAIN_S:
            return known
        try:
            status = run.status()
            dead = self._is_dead(run, status)
        except StoreError as error:
            self._failed(error)
            return known
        gpus = known.gpus if known else None
        state = "lost" if dead else status.state
        return Seen(status, state, self._gpus(run) if gpus is None else gpus, now)

    def _is_dead(self, run: Run, status: Status) -> bool:
        if status.state != "running":
            return False
        holder, tag = run.read_heartbeat()
        unmoved_s = self._watch.see(run.id, tag)
        enough = unmoved_s > look_s(holder)
        evidence = lease_evidence(status, holder)
        return bool(cause_of_death(status, evidence, unmoved_s if enough else None))

    def _gpus(self, run: Run) -> float | None:
        try:
            spec = run.spec()
        except StoreError:  # damaged, or away since it answered just now
            self._errors += 1
            return None
        return spec.world_size * spec.profile.gpus_per_worker

    def _failed(self, error: StoreError) -> None:
        self._errors += 1
        self._last_error = error

    def _run_samples(self) -> Iterator[Sample]:
        states = Counter(seen.state for seen in self._seen.values())
        for state in STATES:
            yield Sample("cifarray_runs", states[state], {"state": state})
        now = datetime.now(UTC)
        for run_id, seen in self._seen.items():
            ended = seen.ended_at
            if ended is None or (now - ended).total_seconds() < RECENT_S:
                yield from run_samples(run_id, seen)
        yield from job_samples(self._seen.values())

    def _reading_samples(self, spent_s: float) -> Iterator[Sample]:
        yield Sample("cifarray_store_up", 0.0 if self._last_error else 1.0)
        yield Sample("cifarray_store_read_seconds", spent_s)
        yield Sample("cifarray_store_read_errors_total", self._errors)
        if self._last_read_at is not None:
            at = self._last_read_at.timestamp()
            yield Sample("cifarray_store_last_read_timestamp_seconds", at)


def export(
    store: Store,
    host: str,
    port: int,
    interval_s: float,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Serve until `stop` is set, reading the store at an interval. Port 0 takes a free one.

    Raises: InputError if nothing can listen there.
    """
    watch, failing = StoreWatch(store, interval_s), False

    def read() -> None:
        nonlocal failing
        error = watch.read()
        if error is not None and not failing:
            say(f"{error}; retrying every {interval_s:g} s")
        elif failing and error is None:
            say(f"{store.uri} can be read again")
        failing = error is not None

    with _served(watch, host, port) as taken:
        say(f"serving http://{host}:{taken}/metrics of {store.uri}")
        # The reader is not waited for, so a store that does not answer does not delay the exit.
        with every(interval_s, read, f"reading {store.uri}", at_once=True, join_s=0.0):
            stop.wait()


@contextmanager
def _served(watch: StoreWatch, host: str, port: int) -> Iterator[int]:
    registry = CollectorRegistry()
    registry.register(_StoreCollector(watch))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}; give another --port or --host"
        ) from error
    assert isinstance(server, WSGIServer)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _StoreCollector(Collector):
    """Passes the last values to prometheus_client, under their registered metrics."""

    def __init__(self, watch: StoreWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        families = {
            name: FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
            for name, metric in STORE.items()
        }
        for sample in self._watch.samples:
            values = [sample.labels[label] for label in STORE[sample.name].labels]
            families[sample.name].add_metric(values, sample.value)
        yield from families.values()
