"""What every store can do, whether a local directory or a bucket holds it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cifarray.digests import content_sha256, pieces_sha256
from cifarray.errors import (
    InputError,
    StoreAwayError,
    StoreDamagedError,
    StoreError,
)
from cifarray.spec.bounds import parse_json
from cifarray.spec.profile import StoreSpec
from cifarray.store.address import STANDARD_CHAIN, Access, local_directory
from cifarray.store.keys import to_json

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

    from cifarray.store.patience import PatientStore, Tell

TRANSFER_TRIES = 5
"""How often a transfer without progress is resumed before it counts as failed."""
VERSION_TRIES = 20
"""How often reading restarts if the object is rewritten meanwhile."""


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    size_bytes: int
    modified: datetime


Entries: TypeAlias = list[Entry]
Keys: TypeAlias = list[str]
"""Named, since inside Store `list` is a method."""


class Store(ABC):
    """A root that holds datasets and runs; keys are relative and '/'-separated.

    Opening one touches nothing. Every failure is a StoreError of one sentence; an absent key is its
    child KeyMissingError. A store can be pickled and shared between threads.
    """

    uri: str
    endpoint: str | None
    access: Access = STANDARD_CHAIN

    @staticmethod
    def open(uri: str, endpoint: str | None = None, access: Access | None = None) -> "Store":
        """The store at `s3://bucket/prefix` or in a local directory; no network, no disk access.

        It waits for a server that does not answer as long as suits a person; see `patient`.
        """
        from cifarray.store.patience import PatientStore

        directory = local_directory(uri)
        if directory is None:
            from cifarray.store.s3 import S3Store

            return PatientStore(S3Store(uri, endpoint, access or STANDARD_CHAIN))
        from cifarray.store.local import LocalStore

        return PatientStore(LocalStore(directory))

    @staticmethod
    def of(spec: StoreSpec) -> "Store":
        """The store that `spec` names: its address and region."""
        return Store.open(spec.uri, spec.endpoint, Access(spec.region))

    def patient(self, limit_s: float, tell: "Tell | None" = None) -> "PatientStore":
        """The same store, whose operations wait up to `limit_s` while it is away or full.

        `tell` hears of a wait when it begins, and None once it is over.
        """
        from cifarray.store.patience import PatientStore

        return PatientStore(self, limit_s, tell)

    @property
    def spec(self) -> StoreSpec:
        """What opens this store again, in another process too; holds no credentials."""
        return StoreSpec(uri=self.uri, endpoint=self.endpoint, region=self.access.region)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.uri, self.endpoint, self.access.without_keys)

    def __repr__(self) -> str:
        at = f", endpoint={self.endpoint!r}" if self.endpoint else ""
        return f"Store({self.uri!r}{at})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Store):
            return False
        return (self.uri, self.endpoint) == (other.uri, other.endpoint)

    def __hash__(self) -> int:
        return hash((self.uri, self.endpoint))

    @abstractmethod
    def check(self) -> None:
        """Raise StoreError, within 15 s, if the store cannot be used."""

    def check_writes(self) -> None:
        """Raise StoreError, before anything is written, if the store is not safe to write to."""
        self.check()

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether the store has an object under this key."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of the object. Raises: KeyMissingError."""

    def read(self, key: str) -> bytes:
        """The whole object. Raises: KeyMissingError."""
        return self.read_tagged(key)[0]

    @abstractmethod
    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """The object and the tag of its version, for `replace`. Raises: KeyMissingError."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Put `data` there at once: a reader sees the old object or the new one, never a part."""

    def extend(self, key: str, data: bytes, known: int) -> None:
        """Write `data`, whose first `known` bytes its one writer has put there before.

        A directory appends the others, so that who follows the file sees it grow.
        """
        del known
        self.write(key, data)

    @abstractmethod
    def create(self, key: str, data: bytes) -> str | None:
        """Write only if the key is absent; the new tag, or None if it is there already.

        Of several writers one wins, given that each writes other bytes.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        """Write only if the object is still the one of `tag`; the new tag, or None if it is not."""

    @abstractmethod
    def list(self, prefix: str = "") -> Entries:
        """Every object below the folder `prefix`, at any depth, sorted by key."""

    @abstractmethod
    def folders(self, prefix: str = "") -> Keys:
        """Names of the immediate sub-folders of `prefix` that hold an object, sorted."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete these objects; absent ones are fine."""

    @abstractmethod
    def delete_folder(self, prefix: str) -> None:
        """Delete everything below `prefix`, what makes it valid first."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store."""

    @abstractmethod
    def copy_folder(self, source_prefix: str, target_prefix: str) -> None:
        """Copy everything below `source_prefix`, what makes it valid last."""

    def filesystem(self) -> "FileSystem":
        """A pyarrow filesystem to use with `path(key)`, over this store's own operations."""
        return self.filesystem_over(self)

    def filesystem_over(self, store: "Store") -> "FileSystem":
        """The filesystem that carries out everything by `store`, which stands before this one."""
        from cifarray.store.arrow import arrow_filesystem

        return arrow_filesystem(store)

    @abstractmethod
    def path(self, key: str = "") -> str:
        """Where `key` lies for `filesystem()`: an absolute path or bucket/prefix/key."""

    def open_input(self, key: str) -> "NativeFile":
        """The object for random access. Raises: KeyMissingError."""
        return self.open_over(self, key)

    def open_over(self, store: "Store", key: str) -> "NativeFile":
        """The object for random access by `store`, which stands before this one."""
        from cifarray.store.arrow import arrow_file

        return arrow_file(store, key)

    def read_range(self, key: str, start: int, stop: int, version: str) -> bytes:
        """Bytes `start` to `stop` of one version of the object. Raises: ObjectChangedError."""
        found = b""
        for chunk in self.chunks(key, start, version):
            found += chunk
            if len(found) >= stop - start:
                break
        return found[: stop - start]

    @abstractmethod
    def version(self, key: str) -> tuple[int, str]:
        """Bytes and an opaque version of the object, without reading it."""

    @abstractmethod
    def chunks(self, key: str, offset: int, version: str) -> Iterator[bytes]:
        """The object from `offset` on.

        Raises: TransferCutError where it stops, ObjectChangedError if it is of another version.
        """

    def read_json(self, key: str) -> Any:
        """The object as JSON. Raises: KeyMissingError, StoreError if it is not JSON."""
        try:
            return parse_json(self.read(key))
        except ValueError as error:
            raise StoreDamagedError(f"{key} in {self.uri} is not JSON: {error}") from error

    def write_json(self, key: str, value: Any) -> None:
        """Write `value` as JSON; NaN and infinities become null, which every reader takes."""
        self.write(key, to_json(value))

    def sha256(self, key: str) -> str:
        """Digest of the object's bytes, read once and never held whole. Raises: KeyMissingError."""
        for _ in range(VERSION_TRIES):
            size, version = self.version(key)
            try:
                return pieces_sha256(self._whole(key, (0, size), version))
            except ObjectChangedError:
                continue
        raise self._keeps_changing(key)

    def download(self, key: str, path: Path, advance: Callable[[int], None] | None = None) -> None:
        """Fetch the object to `path`, which appears only when whole; a cut transfer resumes.

        `advance` is told of bytes as they arrive, and at once of those that an earlier try left.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(VERSION_TRIES):
                if self._fetched(key, path, advance or (lambda _: None)):
                    return
        except OSError as error:
            raise InputError(f"cannot save {key} as {path}: {error.strerror or error}") from error
        raise self._keeps_changing(key)

    def _fetched(self, key: str, path: Path, tell: Callable[[int], None]) -> bool:
        """Fetch the version that is there now; False if another one takes its place meanwhile."""
        size, version = self.version(key)
        mark = content_sha256(f"{key}\n{version}")[:12]
        part = path.with_name(f"{path.name[:50]}.{mark}.part")
        with part.open("ab") as file:
            done = file.tell()
            if done > size:  # two transfers wrote at once
                file.truncate(0)
                done = 0
            tell(done)
            try:
                for chunk in self._whole(key, (done, size), version):
                    file.write(chunk)
                    tell(len(chunk))
                    done += len(chunk)
            except ObjectChangedError:
                tell(-done)
                part.unlink()
                return False
        os.replace(part, path)
        return True

    def _whole(self, key: str, span: tuple[int, int], version: str) -> Iterator[bytes]:
        """The bytes of `span`, taken up again where the transfer is cut."""
        done, size = span
        stalled = 0
        while done < size:
            before = done
            try:
                for chunk in self.chunks(key, done, version):
                    done += len(chunk)
                    yield chunk
                break
            except TransferCutError as cut:
                stalled = stalled + 1 if done == before else 0
                if stalled >= TRANSFER_TRIES:
                    raise StoreAwayError(
                        f"{key} stopped arriving from {self.uri} after {done} of {size} bytes; "
                        "the same command resumes there"
                    ) from cut
        if done != size:
            raise StoreDamagedError(f"{key} in {self.uri} has {done} bytes instead of {size}")

    def _keeps_changing(self, key: str) -> StoreError:
        return StoreAwayError(f"{key} in {self.uri} changes faster than it can be read; try again")


class TransferCutError(Exception):
    """The bytes of an object stopped arriving; the transfer may be taken up again."""


class ObjectChangedError(Exception):
    """Another version has taken the place of the one that was being read."""


def readable(path: Path) -> Path:
    """`path` itself. Raises: InputError if it is no file that can be read."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
