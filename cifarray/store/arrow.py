"""A store as pyarrow and Ray see it: a filesystem whose every operation is the store's own.

So one client does all transfers, with one set of credentials, one retry limit and one check that
what was written is there.
"""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from cifarray.errors import CifarrayError, KeyMissingError
from cifarray.store.base import Store

AHEAD_BYTES = 1 << 20
"""Read at least so much at once: a request costs more than the bytes."""


def arrow_filesystem(store: Store) -> PyFileSystem:
    """A pyarrow filesystem that takes `store.path(key)`; pickled, it holds the address alone."""
    store.check()
    return PyFileSystem(StoreHandler(store))


def arrow_file(store: Store, key: str) -> pa.PythonFile:
    """The object for random access. Raises: KeyMissingError."""
    return pa.PythonFile(io.BufferedReader(StoredFile(store, key), AHEAD_BYTES), mode="r")


class StoredFile(io.RawIOBase):
    """One version of an object, read range by range."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        self._store, self._key = store, key
        self._size, self._version = store.version(key)
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are bytes."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        found = self._store.read_range(self._key, self._at, stop, self._version)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class UploadedFile(io.BytesIO):
    """Collects what is written, and uploads it when the file is closed.

    `pyarrow.fs.copy_files`, with which Ray copies, closes a file in its destructor and drops what
    goes wrong there. So an upload that fails is kept, and the filesystem's next operation raises.
    """

    def __init__(self, handler: "StoreHandler", key: str) -> None:
        super().__init__()
        self._handler, self._key = handler, key

    def close(self) -> None:
        """Upload what was written."""
        if not self.closed:
            content = self.getvalue()
            super().close()
            self._handler.upload(self._key, content)


class StoreHandler(FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """pyarrow's filesystem operations, executed by a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = f"{store.path()}/"
        self._failed: CifarrayError | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreHandler, (self._store,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreHandler) and self._store == other._store

    def __ne__(self, other: object) -> bool:
        return not self == other  # pyarrow asks for one of its own

    def __hash__(self) -> int:
        return hash(self._store)

    def _key(self, path: str) -> str:
        """The store's key of a path. Raises: an upload's error that nobody has heard of."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        path = path.rstrip("/")
        if f"{path}/" == self._root:
            return ""
        if not path.startswith(self._root):
            raise FileNotFoundError(f"{path} is outside of {self._store.uri}")
        return path[len(self._root) :]

    def upload(self, key: str, content: bytes) -> None:
        """Put the content there; an error is raised, and kept for whoever comes next."""
        try:
            self._store.write(key, content)
        except CifarrayError as error:
            self._failed = error
            raise

    def get_type_name(self) -> str:
        """What pyarrow calls it."""
        return "cifarray"

    def normalize_path(self, path: str) -> str:
        """The path itself."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[FileInfo]:
        """Whether each path is a file, a folder that holds one, or nothing."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> FileInfo:
        key = self._key(path)
        if key:
            try:
                return FileInfo(path, FileType.File, size=self._store.size(key))
            except KeyMissingError:
                pass
        if not key or self._store.list(key):
            return FileInfo(path, FileType.Directory)
        return FileInfo(path, FileType.NotFound)

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """What lies in a folder, at any depth where that is asked for."""
        key = self._key(selector.base_dir)
        found = self._store.list(key)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        inside = f"{key}/" if key else ""
        folders: dict[str, None] = {}
        infos = []
        for entry in found:
            parts = entry.key[len(inside) :].split("/")
            if len(parts) == 1 or selector.recursive:
                infos.append(FileInfo(self._root + entry.key, FileType.File, size=entry.size_bytes))
            deepest = len(parts) if selector.recursive else min(len(parts), 2)
            for depth in range(1, deepest):
                folders[inside + "/".join(parts[:depth])] = None
        return [FileInfo(self._root + name, FileType.Directory) for name in folders] + infos

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: a folder is there once something lies in it."""
        self._key(path)

    def delete_dir(self, path: str) -> None:
        """Delete everything below a folder."""
        self._store.delete_folder(self._key(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete everything below a folder."""
        self._store.delete_folder(self._key(path))

    def delete_root_dir_contents(self) -> None:
        """Refused: nobody means the whole bucket."""
        raise PermissionError("pyarrow must not delete the whole store")

    def delete_file(self, path: str) -> None:
        """Delete one object."""
        self._store.delete([self._key(path)])

    def move(self, src: str, dest: str) -> None:
        """Copy, then delete."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Read and write."""
        self._store.write(self._key(dest), self._store.read(self._key(src)))

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """The object from its first byte on."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.PythonFile:
        """The object for random access."""
        try:
            return arrow_file(self._store, self._key(path))
        except KeyMissingError as error:
            raise FileNotFoundError(path) from error

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        """A new object, which is there once the stream is closed."""
        return pa.PythonFile(UploadedFile(self, self._key(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        """Refused: an object is written once."""
        raise NotImplementedError("an object of a bucket cannot be appended to")
