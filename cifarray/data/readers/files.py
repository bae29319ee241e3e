"""The files of an archive that are wanted, whether it is a folder, a tar or a zip.

Nothing that an archive names is ever written under that name: what a tar holds is laid one file
after the other into a temporary one without a name. In a folder, a link is followed inside the
folder itself, and from a snapshot in the Hub's cache into the blobs of the same repository; what
leads elsewhere is refused, or counted where no image needs it.
"""

import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.containers import (
    HIDDEN,
    MOST_FILE_BYTES,
    MOST_RATIO,
    Wanted,
    checked_name,
    is_folder_in_zip,
    is_hidden_folder,
    is_link_in_zip,
    is_plain,
    keep,
    limited,
    open_tar,
    open_zip,
    read_in_zip,
    refuse_link,
    refuse_pointer,
    refuse_twice,
    tar_members,
    unpacked_limit,
    why_no_sample,
    zip_members,
)
from cifarray.errors import ArchiveError

HUB_REPOSITORY = re.compile(r"(datasets|models|spaces)--.+")
MOST_DEPTH = 64
"""Of folders in folders: deeper, and a path is too long for the system."""


class ArchiveFiles(Protocol):
    """The wanted files of an archive, by their paths in it, sorted; hidden files are counted."""

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
    """Sorts the names of an archive's files into wanted, others and hidden ones."""

    def __init__(self, path: Path, wanted: Wanted, left_out: LeftOutCounter) -> None:
        self.path = path
        self.folders: list[str] = []
        self.others: list[str] = []
        self._wanted, self._left_out = wanted, left_out

    def takes(self, name: str, *, link: bool = False) -> bool:
        """Whether the file of this name is to be kept; the others are counted or listed."""
        reason = why_no_sample(name)
        if reason:
            self._left_out.add("litter", reason, example=name)
        elif self._wanted(name):
            checked_name(self.path.name, name)
            if link:
                refuse_link(self.path.name, name)
            return True
        elif link:
            self._left_out.add("litter", "link that is not an image", example=name)
        elif is_plain(name):
            self.others.append(name)
        else:
            self._left_out.add("file", "a name that is not plain text", example=name)
        return False

    def add_folder(self, name: str) -> None:
        """A folder that the archive names."""
        if not any(map(is_hidden_folder, name.split("/"))):
            self.folders.append(checked_name(self.path.name, name))


class ZipFiles(_Listing):
    """Files in a zip; its folders may be parted by the backslashes of Windows."""

    def __init__(
        self, path: Path, archive: zipfile.ZipFile, wanted: Wanted, left_out: LeftOutCounter
    ) -> None:
        super().__init__(path, wanted, left_out)
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        left = unpacked_limit(path)
        for name, member in zip_members(path.name, archive):
            left -= member.file_size
            if left < 0:
                raise ArchiveError(
                    f"{path.name} unpacks to more than {MOST_RATIO} times its own size; it is "
                    "refused: unpack it yourself"
                )
            if is_folder_in_zip(member):
                self.add_folder(name)
            elif self.takes(name, link=is_link_in_zip(member)):
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
        with open_tar(path, unpacked_limit(path)) as tar:
            for name, member in tar_members(path.name, tar):
                if member.isdir():
                    self.add_folder(name)
                elif self.takes(name, link=not member.isfile()):
                    refuse_twice(path.name, name, self._places)
                    self._keep(name, tar, member)
        self.names = sorted(self._places)

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


class FolderFiles:
    """Files below a folder."""

    def __init__(self, path: Path, wanted: Wanted, left_out: LeftOutCounter | None = None) -> None:
        self.path = path
        self.folders: list[str] = []
        self._wanted = wanted
        self._left_out = left_out or LeftOutCounter()
        self._places: dict[str, Path] = {}
        """The real path of each file."""
        try:
            self._inside = (os.path.realpath(path), *_blobs_of(path))
            for name, place in self._walk("", path, False):
                self._places[name] = place
        except OSError as error:
            raise ArchiveError(
                f"{path} cannot be read: {error.strerror}; give another folder"
            ) from error
        self.names = sorted(name for name in self._places if wanted(name))
        read = {self._places[name] for name in self.names}
        self.others = sorted(
            name for name, place in self._places.items() if not wanted(name) and place not in read
        )

    def place(self, name: str) -> Path:
        """Where a file lies, behind its link if it is one."""
        return self._places[name]

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            with self._places[name].open("rb") as file:
                content = limited(self.path.name, name, file.read(MOST_FILE_BYTES + 1))
        except OSError as error:
            raise ArchiveError(
                f"{self.path / name} cannot be read: {error.strerror}; change its permissions, "
                "or remove it"
            ) from error
        refuse_pointer(f"{self.path.name}, {name[-120:]},", content)
        return content

    def _walk(self, below: str, at: Path, linked: bool) -> Iterator[tuple[str, Path]]:
        """Files and where they lie; `linked` below a link, where no further one is followed."""
        if below.count("/") > MOST_DEPTH:
            raise ArchiveError(
                f"{self.path.name} contains folders nested more than {MOST_DEPTH} deep; give the "
                "folder with the images"
            )
        with os.scandir(at) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_symlink():
                yield from self._behind(name, at / entry.name, linked)
            elif entry.is_dir(follow_symlinks=False):
                yield from self._folder(name, at / entry.name, linked)
            elif not entry.is_file(follow_symlinks=False):
                self._refuse_or_count(name, "device or pipe", "which is a device or a pipe")
            elif self._counts(name):
                yield name, at / entry.name

    def _folder(self, name: str, at: Path, linked: bool) -> Iterator[tuple[str, Path]]:
        if not any(map(is_hidden_folder, name.split("/"))):
            self.folders.append(checked_name(self.path.name, name))
        yield from self._walk(f"{name}/", at, linked)

    def _behind(self, name: str, link: Path, linked: bool) -> Iterator[tuple[str, Path]]:
        """What a link leads to."""
        target = Path(os.path.realpath(link))
        stays = any(target.is_relative_to(inside) for inside in self._inside)
        if why_no_sample(name) or is_hidden_folder(name.rpartition("/")[2]):
            self._left_out.add("litter", why_no_sample(name) or HIDDEN, example=name)
        elif stays and target.is_file():
            if self._counts(name):
                yield name, target
        elif target.is_dir():
            here = Path(os.path.realpath(link.parent))
            if here.is_relative_to(target):
                self._left_out.add("litter", "link to a folder that contains it", example=name)
            elif not stays or linked:
                raise ArchiveError(
                    f"{self.path.name} contains {name[:80]!r}, which is a link to a folder "
                    f"{'behind another link' if stays else 'outside of it'}; it is refused: put "
                    "the folder itself there"
                )
            else:
                yield from self._folder(name, target, True)
        else:
            self._refuse_or_count(
                name,
                "link that is not an image",
                "which is a link that leads outside of it or nowhere",
            )

    def _refuse_or_count(self, name: str, reason: str, what: str) -> None:
        if self._wanted(name):
            raise ArchiveError(
                f"{self.path.name} contains {name[:80]!r}, {what}; it is refused: put the file "
                "itself there"
            )
        self._left_out.add("litter", reason, example=name)

    def _counts(self, name: str) -> bool:
        """Whether a file may be read; what nobody put there is counted instead."""
        reason = why_no_sample(name)
        if reason:
            self._left_out.add("litter", reason, example=name)
            return False
        if not self._wanted(name) and not is_plain(name):
            self._left_out.add("file", "a name that is not plain text", example=name)
            return False
        checked_name(self.path.name, name)
        return True


def _blobs_of(path: Path) -> Iterator[str]:
    """The blobs of the repository in the Hub's cache that a folder is a snapshot of."""
    for place in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        for folder in (place, *place.parents):
            repository = folder.parent.parent
            if folder.parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(repository.name):
                yield os.path.join(os.path.realpath(repository), "blobs")
