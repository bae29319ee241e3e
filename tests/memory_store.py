"""A store in memory, quick enough for thousands of simulated runs; it can be away for a while."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cifarray.errors import KeyMissingError
from cifarray.store.base import Entries, Entry, Keys, Store

EPOCH = datetime(2026, 11, 23, tzinfo=UTC)


class MemoryStore(Store):
    """Objects by key. `on_use` is called first by whatever is asked, and may raise."""

    def __init__(self, objects: dict[str, bytes], on_use: Callable[[], None]) -> None:
        self.uri, self.endpoint = "memory", None
        self._objects, self._on_use = objects, on_use

    def check(self) -> None:
        self._on_use()

    def exists(self, key: str) -> bool:
        self._on_use()
        return key in self._objects

    def size(self, key: str) -> int:
        return len(self.read(key))

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        self._on_use()
        if key not in self._objects:
            raise KeyMissingError(f"no {key} in {self.uri}")
        return self._objects[key], _tag(self._objects[key])

    def write(self, key: str, data: bytes) -> None:
        self._on_use()
        self._objects[key] = data

    def create(self, key: str, data: bytes) -> str | None:
        self._on_use()
        return _tag(data) if self._objects.setdefault(key, data) is data else None

    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        self._on_use()
        if key not in self._objects or _tag(self._objects[key]) != tag:
            return None
        self._objects[key] = data
        return _tag(data)

    def list(self, prefix: str = "") -> Entries:
        self._on_use()
        inside = sorted(key for key in self._objects if not prefix or key.startswith(f"{prefix}/"))
        return [Entry(key, len(self._objects[key]), EPOCH) for key in inside]

    def folders(self, prefix: str = "") -> Keys:
        start = len(prefix) + 1 if prefix else 0
        rests = [entry.key[start:] for entry in self.list(prefix)]
        return sorted({rest.partition("/")[0] for rest in rests if "/" in rest})

    def delete(self, keys: Iterable[str]) -> None:
        self._on_use()
        for key in keys:
            self._objects.pop(key, None)

    def delete_folder(self, prefix: str) -> None:
        self.delete([entry.key for entry in self.list(prefix)])

    def upload(self, path: Path, key: str) -> None:
        self.write(key, path.read_bytes())

    def copy_folder(self, source_prefix: str, target_prefix: str) -> None:
        for entry in self.list(source_prefix):
            self.write(target_prefix + entry.key[len(source_prefix) :], self.read(entry.key))

    def filesystem(self) -> Any:
        raise NotImplementedError("pyarrow does not see it")

    def path(self, key: str = "") -> str:
        return key

    def open_input(self, key: str) -> Any:
        raise NotImplementedError("pyarrow does not see it")

    def version(self, key: str) -> tuple[int, str]:
        data, tag = self.read_tagged(key)
        return len(data), tag

    def chunks(self, key: str, offset: int, version: str) -> Iterator[bytes]:
        yield self.read(key)[offset:]


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
