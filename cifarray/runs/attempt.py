"""An attempt: one life of a run's driver, which alone may change the run while it has the lease."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from cifarray.errors import LeaseLostError, StoreAwayError, StoreError
from cifarray.runs.folders import write_index
from cifarray.runs.lease import Lease
from cifarray.runs.status import Status, now
from cifarray.store.layout import LOG_FILE

if TYPE_CHECKING:
    from cifarray.runs.run import Run

WRITE_TRIES = 20


class Attempt:
    """The attempt in charge. Once another one takes over, every call raises LeaseLostError."""

    def __init__(self, run: "Run", lease: Lease) -> None:
        self.run = run
        self.number = lease.holder.attempt
        self.place = run.place.of_attempt(self.number)
        self.lost = threading.Event()
        """Set once this attempt is known to be no longer in charge."""
        self._lease = lease
        self._lock = threading.RLock()
        self._status: Status | None = None
        self._status_tag: str | None = None

    @property
    def prefix(self) -> str:
        """Its folder in the store."""
        return self.place.prefix

    def begin(self) -> None:
        """Show the run as running by this attempt, in whose folder readers look from now on.

        What an earlier attempt reached as its best stays. Raises: LeaseLostError.
        """
        with self._lock:
            status = self._read_status()
            job = None if status.job else self.run.spec().job  # a status that was damaged
            self._write(
                state="running",
                attempts=self.number,
                job=job.name if job else status.job,
                kind=job.kind if job else status.kind,
                started_at=status.started_at or now(),
                heartbeat_at=now(),
                ended_at=None,
                error=None,
                progress=None,
            )

    def heartbeat(
        self, progress: dict[str, Any] | None = None, best: dict[str, Any] | None = None
    ) -> None:
        """Renew the lease and show that the run lives, with news of it if given.

        Raises: LeaseLostError if another attempt took over; status.json is then left alone.
        """
        news: dict[str, Any] = {"progress": progress, "best": best}
        given = {name: value for name, value in news.items() if value is not None}
        with self._lock:
            self._renew()
            self._write(state="running", heartbeat_at=now(), **given)

    @contextmanager
    def keep_alive(self, every_s: float | None = None) -> Iterator["Attempt"]:
        """Heartbeat in the background; `lost` is set, and that ends, once the lease is gone."""
        every_s, over = every_s or self._lease.holder.heartbeat_s, threading.Event()

        def beat() -> None:
            while not over.wait(every_s):
                try:
                    self.heartbeat()
                except LeaseLostError:
                    return
                except StoreError:  # a store that is away for a while is tried again
                    continue

        thread = threading.Thread(target=beat, daemon=True, name=f"heartbeat of {self.run.id}")
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join(timeout=every_s)

    def close(
        self, state: Literal["finished", "failed", "stopped"], error: str | None = None
    ) -> None:
        """Write the index of the attempt's files and the run's last status.

        A finished run is one whose index is there. An end that was forced comes first, since who
        forced it may give no time for more.
        """
        ended = {"state": state, "error": error}
        with self._lock:
            self._renew()
            if state != "finished":
                self._write(**ended, heartbeat_at=now(), ended_at=now())
            write_index(self.run.store, self.prefix, leave_out=(LOG_FILE,))
            if state == "finished":
                self._renew()
                self._write(**ended, heartbeat_at=now(), ended_at=now())

    def _renew(self) -> None:
        self._refuse_if_lost()
        if not self._lease.renew():
            self._give_up()

    def _write(self, **changes: Any) -> None:
        """Change status.json if it is still this attempt's to change."""
        for _ in range(WRITE_TRIES):
            status = self._status or self._read_status()
            changed = dataclasses.replace(status, **changes)
            tag = self.run.write_status(changed, self._status_tag)
            if tag is not None:
                self._status, self._status_tag = changed, tag
                return
            self._status = None  # somebody else wrote it: the CLI, or an attempt that took over
        raise StoreAwayError(
            f"the status of run {self.run.id} is being written by too many at once"
        )

    def _read_status(self) -> Status:
        """The status as it is now, if this attempt may still change it.

        The lease is renewed after the reading, since whoever takes it away writes the status next:
        what was read is then either older than that, or this attempt hears of it here.
        """
        status, self._status_tag = self.run.tagged_status()
        if status.attempts > self.number:
            self._give_up()
        if status.state == "finished" and status.attempts < self.number:
            self.lost.set()
            raise LeaseLostError(
                f"run {self.run.id} was finished by attempt {status.attempts} before "
                f"attempt {self.number} could begin; see `cifarray report {self.run.id}`"
            )
        self._renew()
        self._status = status
        return status

    def _refuse_if_lost(self) -> None:
        if self.lost.is_set():
            self._give_up()

    def _give_up(self) -> None:
        self.lost.set()
        raise LeaseLostError(
            f"attempt {self.number} of run {self.run.id} is no longer in charge: "
            f"another attempt or a stop has taken over; see `cifarray status {self.run.id}`"
        )
