"""The files of an archive that are wanted, whether it is a folder, a tar or a zip.

Nothing that an archive names is ever written under that name: what a tar holds is laid one file
after the other into a temporary one without a name.
"""

import gzip
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast
from unicodedata import category

from cifarray.data.archives.members import BROKEN_TAR, CHUNK_BYTES, Bounded, check_member, unpacked
from cifarray.data.archives.members import plain as plain_name
from cifarray.errors import ArchiveError

MOST_FILE_BYTES = 64 << 20
"""Of one image or one list."""
MOST_RATIO = 50
"""How many times its own size an archive may unpack to: images hardly become smaller in one."""
LEAST_BUDGET_BYTES = 64 << 20
BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)
"""What zipfile raises on a damaged file, beside OSError; a name that is no text is a ValueError."""

Wanted = Callable[[str], bool]
"""Whether a layout has a use for the file at this path."""


class ArchiveFiles(Protocol):
    """The wanted files of an archive, by their paths in it, sorted."""

    @property
    def path(self) -> Path:
        """Of the archive."""

    @property
    def names(self) -> Sequence[str]:
        """The wanted files' paths."""

    @property
    def others(self) -> Sequence[str]:
        """The paths of all other files."""

    @property
    def folders(self) -> Sequence[str]:
        """All folders that it names, wanted files in them or not."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises: ArchiveError."""


@contextmanager
def open_files(path: Path, wanted: Wanted) -> Iterator[ArchiveFiles]:
    """The wanted files of an archive. Raises: ArchiveError if it is broken or unsafe."""
    if path.is_dir():
        yield FolderFiles(path, wanted)
    elif zipfile.is_zipfile(path):
        with _zip(path) as archive:
            yield ZipFiles(path, archive, wanted)
    else:
        with tempfile.TemporaryFile(prefix="cifarray-", buffering=0) as spool:
            yield TarFiles(path, cast(BinaryIO, spool), wanted)


class FolderFiles:
    """Files below a folder; links are refused, since they may lead out of it."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path = path
        self.folders: list[str] = []
        try:
            found = sorted(self._walk(""))
        except OSError as error:
            raise ArchiveError(
                f"{path} cannot be read: {error.strerror}; give another folder"
            ) from error
        self.names = [name for name in found if wanted(name)]
        self.others = [name for name in found if not wanted(name)]

    def _walk(self, below: str) -> Iterator[str]:
        with os.scandir(self.path / below) as entries:
            for entry in entries:
                name = _checked(self.path.name, f"{below}{entry.name}")
                if entry.is_dir(follow_symlinks=False):
                    self.folders.append(name)
                    yield from self._walk(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield name
                else:
                    raise ArchiveError(
                        f"{self.path.name} holds {name[:80]!r}, which is a link or a device; it is "
                        "refused: put the file itself there"
                    )

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            with (self.path / name).open("rb") as file:
                return _limited(self.path.name, name, file.read(MOST_FILE_BYTES + 1))
        except OSError as error:
            raise ArchiveError(f"{self.path / name} cannot be read: {error.strerror}") from error


class ZipFiles:
    """Files in a zip."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, wanted: Wanted) -> None:
        self.path, self._archive = path, archive
        budget = _budget(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.folders: list[str] = []
        self.others: list[str] = []
        for member in archive.infolist():
            name = _checked(path.name, plain_name(member.filename))
            budget -= member.file_size
            if budget < 0:
                raise ArchiveError(f"{path.name} {TOO_LARGE}")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ArchiveError(f"{path.name} holds {name[:80]!r}, a link; it is refused")
            if member.filename.endswith("/"):  # is_dir() fails where there is no name
                self.folders.append(name)
            elif wanted(name):
                _refuse_twice(path.name, name, self._members)
                self._members[name] = member
            else:
                self.others.append(name)
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            with self._archive.open(self._members[name]) as file:
                return _limited(self.path.name, name, file.read(MOST_FILE_BYTES + 1))
        except (*BROKEN_ZIP, OSError) as error:
            raise ArchiveError(
                f"{self.path.name} is damaged in {name[:80]!r}, or encrypted; fetch it again"
            ) from error


class TarFiles:
    """Files in a tar, packed by gzip or not, read once from its beginning to its end."""

    def __init__(self, path: Path, spool: BinaryIO, wanted: Wanted) -> None:
        self.path, self._spool = path, spool
        self._places: dict[str, tuple[int, int]] = {}
        self.folders: list[str] = []
        self.others: list[str] = []
        try:
            self._read(wanted)
        except (*BROKEN_TAR, gzip.BadGzipFile) as error:
            raise ArchiveError(
                f"{path.name} is cut short, or neither a zip nor a tar, plain or packed by gzip; "
                "fetch it again, or unpack it and give the folder"
            ) from error
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
        self.names = sorted(self._places)

    def _read(self, wanted: Wanted) -> None:
        with self.path.open("rb") as file, unpacked(file) as source:
            stream = Bounded(source, self.path.name, _budget(self.path))
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                for member in tar:
                    check_member(self.path.name, member)
                    name = _checked(self.path.name, plain_name(member.name))
                    if member.isdir():
                        self.folders.append(name)
                    elif wanted(name):
                        _refuse_twice(self.path.name, name, self._places)
                        self._keep(name, tar, member)
                    else:
                        self.others.append(name)
            while stream.read(CHUNK_BYTES):  # to the end, where gzip keeps its checksum
                pass

    def _keep(self, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        file = tar.extractfile(member)
        content = _limited(self.path.name, name, file.read(MOST_FILE_BYTES + 1) if file else b"")
        if len(content) != member.size:
            raise EOFError
        self._places[name] = (keep(self._spool, content), len(content))

    def read(self, name: str) -> bytes:
        """A file's content."""
        offset, size = self._places[name]
        self._spool.seek(offset)
        return self._spool.read(size)


def keep(spool: BinaryIO, content: bytes) -> int:
    """Write at the end of an unbuffered file, and say where that begins.

    What a buffer still holds would fail once more, and in other words, when the file is closed.

    Raises: ArchiveError if the disk is full.
    """
    try:
        offset = spool.seek(0, os.SEEK_END)
        left = memoryview(content)
        while left:
            left = left[spool.write(left) :]
    except OSError as error:
        raise ArchiveError(
            f"the temporary folder {tempfile.gettempdir()} cannot take the archive's images "
            f"({error.strerror}); make room there, or set TMPDIR to a folder that has room"
        ) from error
    return offset


TOO_LARGE = f"unpacks to more than {MOST_RATIO} times its own size; it is refused"


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (*BROKEN_ZIP, OSError) as error:
        raise ArchiveError(f"{path.name} is cut short or no zip; fetch it again") from error
    with archive:
        yield archive


def _budget(path: Path) -> int:
    return max(LEAST_BUDGET_BYTES, MOST_RATIO * path.stat().st_size)


def _checked(archive: str, name: str) -> str:
    """The name of a file or folder, unless it leaves the archive or is no text."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise ArchiveError(f"{archive} holds {name[:80]!r}, which leaves its folder; it is refused")
    if not all(c.isprintable() or category(c) == "Zs" for c in name):  # Zs: any blank
        raise ArchiveError(f"{archive} holds {name[:80]!a}, whose name is no plain text; rename it")
    return name


def _refuse_twice(archive: str, name: str, known: object) -> None:
    if name in known:  # type: ignore[operator]
        raise ArchiveError(f"{archive} holds {name[:80]!r} twice; it is refused")


def _limited(archive: str, name: str, content: bytes) -> bytes:
    if len(content) > MOST_FILE_BYTES:
        raise ArchiveError(
            f"{archive} holds {name[:80]!r} of more than {MOST_FILE_BYTES} bytes, which is too "
            "much for an image; it is refused"
        )
    return content
