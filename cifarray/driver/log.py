"""Stores the driver's output with the run, and prints it too."""

import os
import select
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifarray.errors import StoreError
from cifarray.store import Store
from cifarray.timers import every

UPLOAD_EVERY_S = 20.0
MOST_READS = 64
"""At once; a pipe holds fewer, so that whoever catches up has all that was printed before."""


@contextmanager
def kept_log(store: Store, key: str, every_s: float = UPLOAD_EVERY_S) -> Iterator["Log"]:
    """Copy everything that this process and its children print to `key`, while it runs too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "driver.log"
        path.touch()  # an upload may come before the first line

        def upload() -> None:
            _upload(store, path, key)

        with (
            every(every_s, upload, "upload of the driver's log", at_end=True),
            _copied_to(path) as log,
        ):
            yield log


class Log:
    """A pipe in place of standard output and error, and a file that gets what comes through it."""

    def __init__(self, path: Path, pipe: int, shown: int) -> None:
        self.path = path
        """The file on this machine that holds the output in the meantime."""
        self._pipe, self._shown = pipe, shown
        self._lock = threading.Lock()
        self._unshown = b""
        os.set_blocking(pipe, False)
        path.touch()

    def catch_up(self) -> bool:
        """Copy to the file what has been printed; whether more may come."""
        with self._lock, self.path.open("ab", buffering=0) as file:
            for _ in range(MOST_READS):
                try:
                    chunk = os.read(self._pipe, 1 << 16)
                except BlockingIOError:
                    return True
                if not chunk:
                    return False
                file.write(chunk)
                self._unshown += chunk
        return True

    def follow(self) -> None:
        """Copy and show until nobody holds the other end of the pipe."""
        more = True
        while more:
            select.select([self._pipe], [], [])
            more = self.catch_up()
            with self._lock:
                chunk, self._unshown = self._unshown, b""
            while chunk:
                try:
                    chunk = chunk[os.write(self._shown, chunk) :]
                except OSError:  # nobody may read it any more
                    break
        os.close(self._pipe)


@contextmanager
def _copied_to(path: Path) -> Iterator[Log]:
    """Replace standard output and error by a pipe; a thread copies it to them and to the file."""
    shown = os.dup(1)
    errors = os.dup(2)
    read_end, write_end = os.pipe()
    log = Log(path, read_end, shown)
    copier = threading.Thread(target=log.follow, daemon=True, name="copy of the driver's log")
    copier.start()
    os.dup2(write_end, 1)
    os.dup2(write_end, 2)
    os.close(write_end)
    try:
        yield log
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(shown, 1)
        os.dup2(errors, 2)
        copier.join(timeout=5.0)  # a child that outlives the run may still hold the pipe
        os.close(errors)


def _upload(store: Store, path: Path, key: str) -> None:
    try:
        store.upload(path, key)
    except StoreError as error:
        os.write(2, f"warning: the log could not be stored: {error}\n".encode())
