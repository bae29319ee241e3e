"""Stores the driver's output with the run, and prints it too."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cifarray.errors import StoreError
from cifarray.store import Store

UPLOAD_EVERY_S = 20.0


@contextmanager
def kept_log(store: Store, key: str, every_s: float = UPLOAD_EVERY_S) -> Iterator[Path]:
    """Copy everything that this process and its children print to `key`, while it runs too.

    Yields the local file that contains it in the meantime.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "driver.log"
        over = threading.Event()

        def upload() -> None:
            while not over.wait(every_s):
                _upload(store, path, key)

        uploader = threading.Thread(target=upload, daemon=True, name="upload of the driver's log")
        try:
            with _copied_to(path):
                uploader.start()
                yield path
        finally:
            over.set()
            uploader.join()
            _upload(store, path, key)


@contextmanager
def _copied_to(path: Path) -> Iterator[None]:
    """Replace standard output and error by a pipe; a thread copies it to them and to the file."""
    shown = os.dup(1)
    errors = os.dup(2)
    read_end, write_end = os.pipe()

    def copy() -> None:
        with path.open("wb", buffering=0) as file, os.fdopen(read_end, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                file.write(chunk)
                with suppress(OSError):  # nobody may read it any more
                    os.write(shown, chunk)

    copier = threading.Thread(target=copy, daemon=True, name="copy of the driver's log")
    copier.start()
    os.dup2(write_end, 1)
    os.dup2(write_end, 2)
    os.close(write_end)
    try:
        yield
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
