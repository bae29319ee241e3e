"""A store in a local directory, which behaves as a bucket does."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cifarray.digests import content_sha256
from cifarray.errors import (
    KeyMissingError,
    StoreAddressError,
    StoreAwayError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)
from cifarray.store.base import Entries, Entry, Keys, ObjectChangedError, Store, readable
from cifarray.store.keys import checked_key, checked_prefix, index_last, is_key, joined
from cifarray.store.layout import RESERVED
from cifarray.store.swap import ClaimedError, delete, swap
from cifarray.user_folders import expanded

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

CHUNK_BYTES = 1 << 20


class LocalStore(Store):
    """Files below one directory, which several machines may share.

    A key is written either under a condition (`create`, `replace`) or without one, never both.
    """

    def __init__(self, directory: str) -> None:
        if not directory or "\0" in directory:
            raise StoreAddressError(f"cannot open a store in {directory!r}; give a directory")
        self._root = Path(os.path.abspath(expanded(directory)))
        self.uri = str(self._root)
        try:
            self.uri.encode()
        except UnicodeEncodeError as error:
            raise StoreAddressError(
                f"cannot open a store in {self.uri!r}, a path that is not UTF-8; give another"
            ) from error
        self.endpoint = None

    def check(self) -> None:
        """Make the directory if it is not there, and see that it can be written."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._temporary(self._root)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _kind_of(error)(
                f"cannot use {self.uri} as a store: {error.strerror}; give a writable directory "
                "with --store"
            ) from error

    def path(self, key: str = "") -> str:
        """The absolute path of `key`."""
        prefix = checked_prefix(key)
        return str(self._root / prefix) if prefix else str(self._root)

    def filesystem_over(self, store: Store) -> "FileSystem":
        """Arrow's local filesystem."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def open_over(self, store: Store, key: str) -> "NativeFile":
        """The file for random access. Raises: KeyMissingError."""
        with self._errors(key):
            return self.filesystem().open_input_file(str(self._file(key)))

    def exists(self, key: str) -> bool:
        """Whether a file lies there."""
        with self._errors(key):
            return self._file(key).is_file()

    def size(self, key: str) -> int:
        """Bytes of the file. Raises: KeyMissingError."""
        return self.version(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """The file and the sha256 of its bytes. Raises: KeyMissingError."""
        with self._errors(key):
            data = self._file(key).read_bytes()
        return data, _tag(data)

    def write(self, key: str, data: bytes) -> None:
        """Write beside and rename: a reader sees the old file or the new one."""
        with self._written(key, data) as (temporary, file):
            os.replace(temporary, file)

    def extend(self, key: str, data: bytes, known: int) -> None:
        """Append what comes behind the `known` bytes; a file of another size is written again."""
        if not self.exists(key) or self.size(key) != known:
            self.write(key, data)
            return
        with self._errors(key), self._file(key).open("ab") as file:
            file.write(data[known:])

    def create(self, key: str, data: bytes) -> str | None:
        """Write only if the key is absent, by an exclusive link."""
        with self._written(key, data) as (temporary, file):
            try:
                os.link(temporary, file)
            except FileExistsError:
                return None
            except OSError as error:  # a file system without hard links
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise
                return self._swap(key, data, lambda: not os.path.lexists(file))
        return _tag(data)

    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        """Write only if the file's bytes are still those of `tag`."""
        if not self.exists(key):
            return None

        def is_unchanged() -> bool:
            try:
                return _tag(self._file(key).read_bytes()) == tag
            except FileNotFoundError:
                return False

        return self._swap(key, data, is_unchanged)

    def _swap(self, key: str, data: bytes, is_expected: Callable[[], bool]) -> str | None:
        """The tag of `data` if it took the file's place under this condition, else None."""
        try:
            with self._write_errors(key):
                return _tag(data) if swap(self._file(key), data, is_expected) else None
        except ClaimedError as error:
            raise StoreAwayError(
                f"cannot write {key} in {self.uri}: it is being written by {error}; try again"
            ) from error

    def list(self, prefix: str = "") -> Entries:
        """Every file below `prefix`, sorted by key."""
        with self._errors(prefix):
            self._refuse_file()
            return sorted(self._walk(checked_prefix(prefix)), key=lambda entry: entry.key)

    def folders(self, prefix: str = "") -> Keys:
        """Names of the sub-directories that hold a file at some depth."""
        with self._errors(prefix):
            self._refuse_file()
            try:
                found = [entry.name for entry in os.scandir(self.path(prefix)) if entry.is_dir()]
            except (FileNotFoundError, NotADirectoryError):
                return []
            base = checked_prefix(prefix)
            return sorted(name for name in found if next(self._walk(joined(base, name)), None))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete these files, and the directories that are empty then."""
        for key in keys:
            file = self._file(key)
            with self._errors(key):
                delete(file)
                self._drop_empty(file.parent)

    def delete_folder(self, prefix: str) -> None:
        """Delete everything below `prefix`, what makes it valid first."""
        self.delete(reversed(index_last([entry.key for entry in self.list(prefix)])))
        folder = Path(self.path(prefix))
        if folder == self._root or not folder.is_dir():
            return
        with self._errors(prefix):
            shutil.rmtree(folder, ignore_errors=True)  # empty directories, cut writes
            self._drop_empty(folder.parent)

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store."""
        readable(path)
        with self._place(key) as (temporary, file):
            shutil.copyfile(path, temporary)
            os.replace(temporary, file)

    def copy_folder(self, source_prefix: str, target_prefix: str) -> None:
        """Copy everything below `source_prefix`, what makes it valid last."""
        source, target = checked_prefix(source_prefix), checked_prefix(target_prefix)
        for key in index_last([entry.key for entry in self.list(source)]):
            self.upload(self._file(key), joined(target, key[len(source) :].lstrip("/")))

    def version(self, key: str) -> tuple[int, str]:
        with self._errors(key):
            found = self._file(key).stat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(key)
        return found.st_size, _version_of(found)

    def chunks(self, key: str, offset: int, version: str) -> Iterator[bytes]:
        with self._errors(key), self._file(key).open("rb") as file:
            if _version_of(os.fstat(file.fileno())) != version:
                raise ObjectChangedError(key)
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def _file(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _walk(self, prefix: str) -> Iterator[Entry]:
        for entry in _scan(self._root / prefix if prefix else self._root):
            key = joined(prefix, entry.name)
            if not is_key(key):  # not a key: an unfinished write, a stranger's file
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(key)
                continue
            with suppress(FileNotFoundError):
                found = entry.stat()
                if entry.is_file():
                    yield Entry(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _temporary(self, folder: Path) -> Path:
        return folder / f"{RESERVED}{secrets.token_hex(8)}"

    @contextmanager
    def _place(self, key: str) -> Iterator[tuple[Path, Path]]:
        file = self._file(key)
        temporary = self._temporary(file.parent)
        try:
            with self._write_errors(key):
                for _ in range(10):  # another process may drop the directory while it is empty
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileNotFoundError):
                        temporary.touch(exist_ok=False)
                        break
                yield temporary, file
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _write_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise _kind_of(error)(f"cannot write {key} in {self.uri}: {reason}") from error

    @contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        with self._place(key) as (temporary, file):
            temporary.write_bytes(data)
            yield temporary, file

    def _refuse_file(self) -> None:
        if self._root.is_file():
            raise StoreAddressError(
                f"{self.uri} is a file, not a store; give a directory with --store"
            )

    def _drop_empty(self, folder: Path) -> None:
        with suppress(OSError):  # the first one that is not empty ends it
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            self._refuse_file()
            raise KeyMissingError(f"no {key or 'such directory'} in {self.uri}") from error
        except OSError as error:
            reason = error.strerror or error
            raise _kind_of(error)(
                f"cannot use {key or 'the root'} in {self.uri}: {reason}"
            ) from error


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
UNREACHABLE = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EAGAIN, errno.ENODEV),
    }
)
"""What a network file system answers whose server is away."""


def _kind_of(error: OSError) -> type[StoreError]:
    """Whether a store that fails so is full, is away or refuses."""
    if error.errno in FULL:
        return StoreFullError
    return StoreAwayError if error.errno in UNREACHABLE else StoreRefusedError


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _version_of(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _tag(data: bytes) -> str:
    return content_sha256(data)
