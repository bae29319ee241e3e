"""Take the expected files out of a tar or a folder, into memory and never onto the disk."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from cifarray.errors import ArchiveError

TAR_OVERHEAD_BYTES = 4 << 20
"""Headers, padding and small files such as a readme; beyond the expected files themselves."""
CHUNK_BYTES = 1 << 20
BROKEN_TAR = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
"""What tarfile and gzip raise on a damaged file, beside BadGzipFile, which is an OSError."""


def read_members(path: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each wanted file, in the order of the archive.

    `limits` gives each wanted file, named as in the published archive, the most bytes it may have.

    Raises:
        ArchiveError: a file is missing, too large, twice there, or the archive is broken or unsafe.
    """
    found = set()
    pairs = _folder_members(path, limits) if path.is_dir() else _tar_members(path, limits)
    for name, content in pairs:
        if name in found:
            raise ArchiveError(f"{path.name} holds {name} twice; it is refused")
        found.add(name)
        yield name, content
    missing = [name for name in limits if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ArchiveError(
            f"{path.name} lacks {missing[0]}{more}; is it another dataset's archive?"
        )


def _file(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > limit_bytes:
        raise ArchiveError(
            f"{path.name} is larger than the {limit_bytes} bytes that it may have; it is refused"
        )
    return content


def place_in_folder(folder: Path, name: str) -> Path | None:
    """Where a folder has this file: under the archive's own sub-folder, or at its top."""
    places = (folder / name, folder / PurePosixPath(name).name)
    return next((place for place in places if place.is_file()), None)


def _folder_members(folder: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    for name, limit in limits.items():
        place = place_in_folder(folder, name)
        if place:
            yield name, _file(place, limit)


class Bounded(io.RawIOBase):
    """Counts what comes out of a decompressor and stops at a limit."""

    def __init__(self, source: BinaryIO, name: str, limit_bytes: int) -> None:
        self.source = source
        self.name = name
        self.left = limit_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self.source.read(self.left + 1 if size < 0 else min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise ArchiveError(
                f"{self.name} unpacks to more than the published archive holds; it is refused"
            )
        return content


def _tar_members(path: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    budget = sum(limits.values()) + TAR_OVERHEAD_BYTES
    try:
        with path.open("rb") as file, unpacked(file) as source:
            stream = Bounded(source, path.name, budget)
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                for member in tar:
                    check_member(path.name, member)
                    if member.isfile() and (name := plain(member.name)) in limits:
                        yield name, _content(path.name, tar, member, limits[name])
            while stream.read(CHUNK_BYTES):  # to the end, where gzip keeps its checksum
                pass
    except (*BROKEN_TAR, gzip.BadGzipFile) as error:
        raise ArchiveError(f"{path.name} is cut short or no tar archive; fetch it again") from error
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error


def unpacked(file: BinaryIO) -> BinaryIO:
    """The tar inside a gzip file, or the file itself."""
    magic = file.read(2)
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if magic == b"\x1f\x8b" else file


def plain(name: str) -> str:
    """A member's path without a leading './'."""
    return str(PurePosixPath(name))


def check_member(archive: str, member: tarfile.TarInfo) -> None:
    """Refuse what would leave a folder or is no file. Raises: ArchiveError."""
    name = PurePosixPath(member.name.replace("\\", "/"))
    shown = repr(member.name[:80])
    if name.is_absolute() or ".." in name.parts:
        raise ArchiveError(f"{archive} holds {shown}, which leaves its folder; it is refused")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ArchiveError(
            f"{archive} holds {shown}, which is a link, a device or a sparse file; it is refused"
        )


def _content(archive: str, tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise ArchiveError(
            f"{archive} holds {member.name} of {member.size} bytes; at most {limit} are allowed"
        )
    file = tar.extractfile(member)
    content = file.read() if file else b""
    if len(content) != member.size:
        raise ArchiveError(f"{archive} is cut short in {member.name}; fetch it again")
    return content
