"""Compare-and-swap of a file, which no suspended or killed process can block.

A writer puts the content into a folder of its own and renames that folder to the file's claim, one
name per file: this works only while no claim is there, or an empty one. Then it checks the
condition and renames the content out of the claim into place. A claim whose holder does not go on
is broken by deleting the content in it: the holder's last rename then finds nothing to move, so
that a process that wakes up late cannot overwrite what is newer. This requires neither flock nor
hard links, only atomic renames.
"""

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cifarray.digests import content_sha256
from cifarray.store.layout import RESERVED
from cifarray.timers import Deadline

PATIENCE_S = 10.0
"""How long to wait for others that claim the same file."""
BROKEN_AFTER_S = 1.0
"""A claim that was kept for longer is broken: normally it takes a few milliseconds."""
POLL_S = 0.005
DELETE_TRIES = 100
"""Attempts; each but the first finds a file that somebody has written since."""


class ClaimedError(Exception):
    """Others claim the file one after the other, or one that cannot be broken; says who."""


def swap(
    file: Path,
    data: bytes,
    is_expected: Callable[[], bool],
    patience_s: float = PATIENCE_S,
    broken_after_s: float = BROKEN_AFTER_S,
) -> bool:
    """Put `data` in the file's place if `is_expected()` then; False if it is not.

    Raises: ClaimedError if that takes longer than the patience, OSError.
    """
    deadline = Deadline(patience_s)
    while True:
        claim = _Claim(file, data)
        try:
            claim.take(deadline, broken_after_s)
            if not is_expected():
                return False
            if claim.commit():
                return True
        finally:
            claim.give_back()
        if _holds(file, data):  # the rename's answer was lost, as over a network
            return True


def delete(file: Path) -> None:
    """Delete a file so that no claim which saw it before puts it there again. Raises: OSError."""
    for _ in range(DELETE_TRIES):
        with suppress(FileNotFoundError, NotADirectoryError):
            file.unlink()
        _break(_place_of(file))
        if not file.exists():
            return


class _Claim:
    """The right to replace a file, and the content that does it."""

    def __init__(self, file: Path, data: bytes) -> None:
        self._file, self._data = file, data
        self._own = file.parent / f"{RESERVED}{secrets.token_hex(8)}"
        self._place = _place_of(file)
        self._content = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"

    def take(self, deadline: Deadline, broken_after_s: float) -> None:
        """Wait for the claim. Raises: ClaimedError."""
        self._write()
        holder, since = "", time.monotonic()
        while not self._rename():
            now, seen = time.monotonic(), _holder(self._place)
            if seen != holder:
                holder, since = seen, now
            elif seen and now - since >= broken_after_s:
                _break(self._place, seen)
            if deadline.is_over:
                raise ClaimedError(_described(holder))
            time.sleep(POLL_S)

    def commit(self) -> bool:
        """Move the content into the file's place; False if somebody has broken the claim."""
        try:
            os.replace(self._place / self._content, self._file)
        except FileNotFoundError:
            return False
        return True

    def give_back(self) -> None:
        """Remove what is left of it; never what another holds."""
        for folder in (self._own, self._place):
            with suppress(OSError):
                (folder / self._content).unlink()
            with suppress(OSError):  # another's claim is not empty
                folder.rmdir()

    def _write(self) -> None:
        for _ in range(10):  # another process may drop the directory while it is still empty
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._own.mkdir()
                (self._own / self._content).write_bytes(self._data)
                return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._file.parent))

    def _rename(self) -> bool:
        try:
            os.rename(self._own, self._place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            with suppress(OSError):  # an empty one, where a file system does not rename over it
                self._place.rmdir()
            return False
        return True


def _place_of(file: Path) -> Path:
    digest = content_sha256(os.fsencode(file.name))[:16]
    return file.parent / f"{RESERVED}claim-{digest}"


def _holder(place: Path) -> str:
    """The name of the content in a claim; empty if nobody holds it."""
    try:
        return next(iter(os.listdir(place)), "")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _break(place: Path, holder: str | None = None) -> None:
    """Take the claim from this holder, or from whoever has it; it learns of that by its rename."""
    name = _holder(place) if holder is None else holder
    if name:
        with suppress(OSError):  # the holder has continued, or only its owner may delete
            (place / name).unlink()
            place.rmdir()


def _holds(file: Path, data: bytes) -> bool:
    try:
        return file.read_bytes() == data
    except OSError:
        return False


def _described(holder: str) -> str:
    """Who holds a claim, for people; the command where it runs here."""
    host, _, pid = holder.rpartition(":")[0].rpartition(":")
    if not host:
        return "other processes"
    words = b""
    if host == socket.gethostname() and pid.isdecimal():
        with suppress(OSError):
            words = Path("/proc", pid, "cmdline").read_bytes()
    command = words.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return f"process {pid} on {host}" + (f" ({command[:200]})" if command else "")
