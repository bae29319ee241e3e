"""The files below a folder, links included where they stay inside of what the person gave.

A link is followed inside the folder itself, and from a snapshot in the Hub's cache into the blobs
of the same repository. Whatever leads elsewhere is refused, or counted where no image needs it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.limits import MOST_FILE_BYTES, Wanted, checked, is_plain, limited
from cifarray.data.readers.litter import SYSTEM, is_litter_folder, litter
from cifarray.data.readers.packing import refuse_pointer
from cifarray.errors import ArchiveError

HUB_REPOSITORY = re.compile(r"(datasets|models|spaces)--.+")
MOST_DEPTH = 64
"""Of folders in folders: deeper, and a path is too long for the system."""


class FolderFiles:
    """Files below a folder."""

    def __init__(self, path: Path, wanted: Wanted, left_out: LeftOutCounter | None = None) -> None:
        self.path = path
        self.folders: list[str] = []
        self._wanted = wanted
        self._left_out = left_out or LeftOutCounter()
        self._places: dict[str, Path] = {}
        """Where each file really lies."""
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
                f"{self.path / name} cannot be read: {error.strerror}; change its permissions, or "
                "take it away"
            ) from error
        refuse_pointer(f"{self.path.name}, {name[-120:]},", content)
        return content

    def _walk(self, below: str, at: Path, linked: bool) -> Iterator[tuple[str, Path]]:
        """Files and where they lie; `linked` below a link, where no further one is followed."""
        if below.count("/") > MOST_DEPTH:
            raise ArchiveError(
                f"{self.path.name} holds folders in folders, more than {MOST_DEPTH} deep; give the "
                "one that holds the images"
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
        if not any(map(is_litter_folder, name.split("/"))):
            self.folders.append(checked(self.path.name, name))
        yield from self._walk(f"{name}/", at, linked)

    def _behind(self, name: str, link: Path, linked: bool) -> Iterator[tuple[str, Path]]:
        """What a link leads to."""
        target = Path(os.path.realpath(link))
        stays = any(target.is_relative_to(inside) for inside in self._inside)
        if litter(name) or is_litter_folder(name.rpartition("/")[2]):
            self._left_out.add("litter", litter(name) or SYSTEM, example=name)
        elif stays and target.is_file():
            if self._counts(name):
                yield name, target
        elif target.is_dir():
            here = Path(os.path.realpath(link.parent))
            if here.is_relative_to(target):
                self._left_out.add("litter", "link to a folder that it lies in", example=name)
            elif not stays or linked:
                raise ArchiveError(
                    f"{self.path.name} holds {name[:80]!r}, which is a link to a folder "
                    f"{'behind another link' if stays else 'outside of it'}; it is refused: put "
                    "the folder itself there"
                )
            else:
                yield from self._folder(name, target, True)
        else:
            self._refuse_or_count(
                name, "link that is no image", "which is a link that leads outside of it or nowhere"
            )

    def _refuse_or_count(self, name: str, reason: str, what: str) -> None:
        if self._wanted(name):
            raise ArchiveError(
                f"{self.path.name} holds {name[:80]!r}, {what}; it is refused: put the file itself "
                "there"
            )
        self._left_out.add("litter", reason, example=name)

    def _counts(self, name: str) -> bool:
        """Whether a file may be read; what nobody put there is counted instead."""
        reason = litter(name)
        if reason:
            self._left_out.add("litter", reason, example=name)
            return False
        if not self._wanted(name) and not is_plain(name):
            self._left_out.add("file", "a name that is no plain text", example=name)
            return False
        checked(self.path.name, name)
        return True


def _blobs_of(path: Path) -> Iterator[str]:
    """The blobs of the repository in the Hub's cache that a folder is a snapshot of."""
    for place in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        for folder in (place, *place.parents):
            repository = folder.parent.parent
            if folder.parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(repository.name):
                yield os.path.join(os.path.realpath(repository), "blobs")
