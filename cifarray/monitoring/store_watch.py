"""What a store says of its runs, read anew again and again, as samples of metrics."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from cifarray.errors import StoreError
from cifarray.metrics import Sample
from cifarray.monitoring.runs_seen import STATES, Seen, job_samples, run_samples
from cifarray.runs import ENDED, Run, Status, cause_of_death, list_runs
from cifarray.runs.liveness import HeartbeatWatch, lease_evidence, look_s
from cifarray.store import Store

RECENT_S = 3600.0
"""So long after its end a run's own series are exported; older ones are Prometheus's to know."""
LONGEST_GAP = 3.0
"""So many intervals may lie between two readings of a heartbeat that count as watching it."""
ENDED_AGAIN_S = 300.0
"""So long the status of a run that has ended is believed; `cifarray resume` may change it."""


class StoreWatch:
    """A store's runs. One thread reads; `samples` may be asked for by any other.

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
