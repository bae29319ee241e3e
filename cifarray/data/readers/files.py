"""The files of an archive that are wanted, whether it is a folder, a tar or a zip.

Nothing that an archive names is ever written under that name: what a tar holds is laid one file
after the other into a temporary one without a name.
"""

import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.folders import FolderFiles
from cifarray.data.readers.limits import (
    MOST_FILE_BYTES,
    TOO_LARGE,
    Wanted,
    budget,
    checked,
    is_plain,
    keep,
    limited,
    refuse_escape,
    refuse_twice,
)
from cifarray.data.readers.litter import is_litter_folder, litter
from cifarray.data.readers.members import BROKEN_TAR, CHUNK_BYTES, Bounded, refuse_kind
from cifarray.data.readers.members import plain as plain_name
from cifarray.data.readers.packing import HEAD_BYTES, refuse_other_packing, refuse_pointer, unpacked
from cifarray.data.readers.zips import name_in_zip, open_zip, read_in_zip
from cifarray.errors import ArchiveError


class ArchiveFiles(Protocol):
    """The wanted files of an archive, by their paths in it, sorted; litter is counted."""

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
def open_files(
    path: Path, wanted: Wanted, left_out: LeftOutCounter | None = None
) -> Iterator[ArchiveFiles]:
    """The wanted files of an archive. Raises: ArchiveError if it is broken or unsafe."""
    left_out = left_out or LeftOutCounter()
    if path.is_dir():
        yield FolderFiles(path, wanted, left_out)
    elif zipfile.is_zipfile(path):
        with open_zip(path) as archive:
            yield ZipFiles(path, archive, wanted, left_out)
    else:
        with tempfile.TemporaryFile(prefix="cifarray-", buffering=0) as spool:
            yield TarFiles(path, cast(BinaryIO, spool), wanted, left_out)


class _Listing:
    """Sorts the names of an archive's files into wanted, others and litter."""

    def __init__(self, path: Path, wanted: Wanted, left_out: LeftOutCounter) -> None:
        self.path = path
        self.folders: list[str] = []
        self.others: list[str] = []
        self._wanted, self._left_out = wanted, left_out

    def takes(self, name: str, *, link: bool = False) -> bool:
        """Whether the file of this name is to be kept; the others are counted or listed."""
        refuse_escape(self.path.name, name)
        reason = litter(name)
        if reason:
            self._left_out.add("litter", reason, example=name)
        elif self._wanted(name):
            checked(self.path.name, name)
            if link:
                raise ArchiveError(
                    f"{self.path.name} holds {name[:80]!r}, which is a link; it is refused: pack "
                    "the file itself"
                )
            return True
        elif link:
            self._left_out.add("litter", "link that is no image", example=name)
        elif is_plain(name):
            self.others.append(name)
        else:
            self._left_out.add("file", "a name that is no plain text", example=name)
        return False

    def add_folder(self, name: str) -> None:
        """A folder that the archive names."""
        refuse_escape(self.path.name, name)
        if not any(map(is_litter_folder, name.split("/"))):
            self.folders.append(checked(self.path.name, name))


class ZipFiles(_Listing):
    """Files in a zip; its folders may be parted by the backslashes of Windows."""

    def __init__(
        self, path: Path, archive: zipfile.ZipFile, wanted: Wanted, left_out: LeftOutCounter
    ) -> None:
        super().__init__(path, wanted, left_out)
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        left = budget(path)
        for member in archive.infolist():
            left -= member.file_size
            if left < 0:
                raise ArchiveError(f"{path.name} {TOO_LARGE}")
            name = name_in_zip(member)
            if member.filename.endswith(("/", "\\")):  # is_dir() fails where there is no name
                self.add_folder(name)
            elif self.takes(name, link=stat.S_ISLNK(member.external_attr >> 16)):
                refuse_twice(path.name, name, self._members)
                self._members[name] = member
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        """A file's content."""
        member = self._members[name]
        content = read_in_zip(self.path.name, self._archive, member, MOST_FILE_BYTES + 1)
        refuse_pointer(f"{self.path.name}, {name[-120:]},", content)
        return limited(self.path.name, name, content)


class TarFiles(_Listing):
    """Files in a tar, packed by gzip or bzip2 or not, read once from its beginning to its end."""

    def __init__(
        self, path: Path, spool: BinaryIO, wanted: Wanted, left_out: LeftOutCounter
    ) -> None:
        super().__init__(path, wanted, left_out)
        self._spool = spool
        self._places: dict[str, tuple[int, int]] = {}
        try:
            self._read()
        except OSError as error:
            if error.errno is None:  # gzip's and bz2's own
                raise _broken_tar(path) from error
            raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
        except BROKEN_TAR as error:
            raise _broken_tar(path) from error
        self.names = sorted(self._places)

    def _read(self) -> None:
        with self.path.open("rb") as file:
            refuse_other_packing(self.path.name, file.read(HEAD_BYTES))
            file.seek(0)
            with unpacked(file) as source:
                stream = Bounded(source, self.path.name, budget(self.path))
                with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                    for member in tar:
                        self._add(tar, member)
                while stream.read(CHUNK_BYTES):  # to the end, where gzip keeps its checksum
                    pass

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        refuse_escape(self.path.name, member.name)
        refuse_kind(self.path.name, member)
        name = plain_name(member.name)
        if member.isdir():
            self.add_folder(name)
        elif self.takes(name, link=member.issym() or member.islnk()):
            refuse_twice(self.path.name, name, self._places)
            self._keep(name, tar, member)

    def _keep(self, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        file = tar.extractfile(member)
        content = limited(self.path.name, name, file.read(MOST_FILE_BYTES + 1) if file else b"")
        if len(content) != member.size:
            raise EOFError
        self._places[name] = (keep(self._spool, content), len(content))

    def read(self, name: str) -> bytes:
        """A file's content."""
        offset, size = self._places[name]
        self._spool.seek(offset)
        content = self._spool.read(size)
        refuse_pointer(f"{self.path.name}, {name[-120:]},", content)
        return content


def _broken_tar(path: Path) -> ArchiveError:
    return ArchiveError(
        f"{path.name} is cut short, or neither a zip nor a tar, plain or packed by gzip or bzip2; "
        "fetch it again, or unpack it and give the folder"
    )
