"""A store that waits for a server that is away: 14 s for a person, half an hour for a run."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cifarray.errors import KeyMissingError, StoreAwayError, StoreFullError
from cifarray.store.address import Access
from cifarray.store.base import Entries, Keys, Store
from cifarray.timers import pauses

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

PERSON_S = 14.0
"""A person at a terminal is told after this time."""
RUN_S = 1800.0
"""A run waits this long unless its profile says otherwise: `store_patience_s`."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)

T = TypeVar("T")


@dataclass(frozen=True)
class Wait:
    """A wait for the store, reported once when it starts."""

    since: str
    """Time of day, as the log has it."""
    reason: str
    full: bool

    def __str__(self) -> str:
        what = "space in the store" if self.full else "the store"
        return f"waiting for {what} since {self.since}: {self.reason}"


Tell = Callable[[Wait | None], None]
"""Hears of a wait when it begins, and None once it is over."""


def in_the_log(wait: Wait | None) -> None:
    """Print it, as a driver's or a worker's log shall have it."""
    print(wait or "the store answers again", flush=True)


class PatientStore(Store):
    """The same store, whose every operation is tried again while it is away or full.

    The limit counts from when it went away, over all operations and threads: what fails after that
    fails at once until the store answers again. For a person, a store that has never answered fails
    at once, since its address is more likely misspelled.
    """

    def __init__(self, behind: Store, limit_s: float = PERSON_S, tell: Tell | None = None) -> None:
        self._behind = behind
        self.limit_s = limit_s
        self._is_a_run = limit_s > PERSON_S
        self._tell = tell or (in_the_log if self._is_a_run else lambda wait: None)
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._waiters: set[object] = set()
        """The operations that wait at this moment."""
        self._told = False
        self._has_answered = False
        self.uri, self.endpoint, self.access = behind.uri, behind.endpoint, behind.access

    def __reduce__(self) -> tuple[Any, ...]:
        return open_patient, (self.uri, self.endpoint, self.access.without_keys, self.limit_s)

    def patient(self, limit_s: float, tell: Tell | None = None) -> "PatientStore":
        """The same store with another patience."""
        again = PatientStore(self._behind, limit_s, tell)
        again._has_answered = self._has_answered
        return again

    def shorten(self, limit_s: float) -> None:
        """Wait no longer than this from now on, as when a person has asked the process to end."""
        self.limit_s = min(self.limit_s, limit_s)

    def _patiently(self, operation: Callable[[], T]) -> T:
        """The operation's result, as soon as the store gives one."""
        failing_since, waiter = float("inf"), object()
        for pause_s in pauses(PAUSES_S):
            try:
                result = operation()
            except StoreAwayError as error:
                failing_since = min(failing_since, time.monotonic())
                self._refuse_if_over(error, failing_since, waiter)
                self._wait(error, waiter)
                time.sleep(pause_s)
            except Exception:
                self._answered(waiter)  # it refused, or has no such key
                raise
            else:
                self._answered(waiter)
                return result
        raise AssertionError("pauses never end")

    def _refuse_if_over(self, error: StoreAwayError, failing_since: float, waiter: object) -> None:
        """Raise if the store has been away for too long.

        An operation of several requests may fail forever at one, while others are answered.
        """
        with self._lock:
            if self._away_since is None:
                self._away_since = time.monotonic()
            waited_s = time.monotonic() - min(self._away_since, failing_since)
            may_wait = self._has_answered or self._is_a_run
            if not may_wait:
                self._away_since = None
            if not may_wait or waited_s >= self.limit_s:
                self._waiters.discard(waiter)
        if not may_wait:
            raise error
        if waited_s >= self.limit_s:
            kind = type(error)
            raise kind(f"{error}; gave up after {waited_s:.0f} s") from error

    def _wait(self, error: StoreAwayError, waiter: object) -> None:
        """Tell of a wait that begins. A full store fails some operations and answers others."""
        with self._lock:
            begins, self._told = not self._told, True
            self._waiters.add(waiter)
        if begins:
            since = datetime.now().strftime("%H:%M:%S")
            self._tell(Wait(since, str(error), isinstance(error, StoreFullError)))

    def _answered(self, waiter: object) -> None:
        """Tell that a wait is over once nothing waits any more."""
        with self._lock:
            self._has_answered, self._away_since = True, None
            self._waiters.discard(waiter)
            over = self._told and not self._waiters
            self._told = self._told and not over
        if over:
            self._tell(None)

    # What each operation does is said in Store.

    def check(self) -> None:
        self._patiently(self._behind.check)

    def check_writes(self) -> None:
        self._patiently(self._behind.check_writes)

    def exists(self, key: str) -> bool:
        return self._patiently(lambda: self._behind.exists(key))

    def size(self, key: str) -> int:
        return self._patiently(lambda: self._behind.size(key))

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        return self._patiently(lambda: self._behind.read_tagged(key))

    def write(self, key: str, data: bytes) -> None:
        self._patiently(lambda: self._behind.write(key, data))

    def extend(self, key: str, data: bytes, known: int) -> None:
        self._patiently(lambda: self._behind.extend(key, data, known))

    def create(self, key: str, data: bytes) -> str | None:
        return self._conditionally(key, data, lambda: self._behind.create(key, data))

    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        return self._conditionally(key, data, lambda: self._behind.replace(key, data, tag))

    def _conditionally(
        self, key: str, data: bytes, operation: Callable[[], str | None]
    ) -> str | None:
        """A conditional write that was tried again may have lost to its own first try."""
        unclear = False

        def once() -> str | None:
            nonlocal unclear
            try:
                tag = operation()
            except StoreAwayError:
                unclear = True
                raise
            return self._tag_if_ours(key, data) if tag is None and unclear else tag

        return self._patiently(once)

    def _tag_if_ours(self, key: str, data: bytes) -> str | None:
        try:
            stored, tag = self._behind.read_tagged(key)
        except KeyMissingError:
            return None
        return tag if stored == data else None

    def list(self, prefix: str = "") -> Entries:
        return self._patiently(lambda: self._behind.list(prefix))

    def folders(self, prefix: str = "") -> Keys:
        return self._patiently(lambda: self._behind.folders(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        named = tuple(keys)
        self._patiently(lambda: self._behind.delete(named))

    def delete_folder(self, prefix: str) -> None:
        self._patiently(lambda: self._behind.delete_folder(prefix))

    def upload(self, path: Path, key: str) -> None:
        self._patiently(lambda: self._behind.upload(path, key))

    def copy_folder(self, source_prefix: str, target_prefix: str) -> None:
        self._patiently(lambda: self._behind.copy_folder(source_prefix, target_prefix))

    def download(self, key: str, path: Path, advance: Callable[[int], None] | None = None) -> None:
        self._patiently(lambda: super(PatientStore, self).download(key, path, advance))

    def filesystem(self) -> "FileSystem":
        return self._patiently(lambda: self._behind.filesystem_over(self))

    def path(self, key: str = "") -> str:
        return self._behind.path(key)

    def open_input(self, key: str) -> "NativeFile":
        return self._patiently(lambda: self._behind.open_over(self, key))

    def read_range(self, key: str, start: int, stop: int, version: str) -> bytes:
        return self._patiently(lambda: self._behind.read_range(key, start, stop, version))

    def version(self, key: str) -> tuple[int, str]:
        return self._patiently(lambda: self._behind.version(key))

    def chunks(self, key: str, offset: int, version: str) -> Iterator[bytes]:
        return self._behind.chunks(key, offset, version)


def open_patient(uri: str, endpoint: str | None, access: Access, limit_s: float) -> Store:
    """The store at this address with this patience, as a process that unpickles it opens it."""
    store = Store.open(uri, endpoint, access)
    assert isinstance(store, PatientStore)
    return store.patient(limit_s)
