"""Take the expected files out of a tar, a zip or a folder, into memory and never onto the disk."""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.limits import refuse_escape
from cifarray.data.readers.litter import litter
from cifarray.data.readers.packing import HEAD_BYTES, refuse_other_packing, refuse_pointer, unpacked
from cifarray.data.readers.zips import name_in_zip, open_zip, read_in_zip
from cifarray.errors import ArchiveError

TAR_OVERHEAD_BYTES = 4 << 20
"""Headers, padding and small files such as a readme; beyond the expected files themselves."""
CHUNK_BYTES = 1 << 20
BROKEN_TAR = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
"""What tarfile, gzip and bz2 raise on a damaged file, beside an OSError without a number."""


def read_members(
    path: Path,
    limits: Mapping[str, int],
    left_out: LeftOutCounter | None = None,
    most_bytes: int | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each wanted file that is there, in the order of the archive.

    `limits` gives each wanted file, named as in the published archive, the most bytes it may have;
    `most_bytes` is what a tar's wanted files may have in all, without it the sum of these. A file
    counts under its name without its folder too, and unpacked from its gzip.

    Raises:
        ArchiveError: a file is too large, twice there, or the archive is broken or unsafe.
    """
    left_out = left_out or LeftOutCounter()
    if path.is_dir():
        pairs = _folder_members(path, limits, left_out)
    elif zipfile.is_zipfile(path):
        pairs = _zip_members(path, limits, left_out)
    else:
        most_bytes = sum(limits.values()) if most_bytes is None else most_bytes
        pairs = _tar_members(path, limits, left_out, most_bytes + TAR_OVERHEAD_BYTES)
    found = set()
    for name, content in pairs:
        if name in found:
            raise ArchiveError(
                f"{path.name} holds {name} twice; it is refused: take one of them away"
            )
        found.add(name)
        refuse_pointer(f"{path.name}, {name},", content)
        yield name, content


def refuse_missing(archive: str, names: Iterable[str], found: Container[str]) -> None:
    """Refuse an archive that lacks one of these files. Raises: ArchiveError."""
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ArchiveError(
            f"{archive} lacks {missing[0]}{more}; is it another dataset's archive? Leave --archive "
            "out to fetch the published one"
        )


def _file(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be read: {error.strerror}; change its permissions"
        ) from error
    if len(content) > limit_bytes:
        raise ArchiveError(
            f"{path.name} is larger than the {limit_bytes} bytes that it may have; it is refused: "
            "fetch it again"
        )
    return content


def spellings(name: str) -> tuple[str, ...]:
    """What a published file is called where people have unpacked it: the idx files, mostly."""
    bare = PurePosixPath(name).name
    names = [bare, bare.removesuffix(".gz")]
    names += [spelled.replace("-idx", ".idx") for spelled in names]
    return tuple(dict.fromkeys(names))


def place_in_folder(folder: Path, name: str) -> Path | None:
    """Where a folder has this file: under the archive's own sub-folder, or at its top."""
    below = (folder / PurePosixPath(name).parent, folder)
    places = (place / spelled for spelled in spellings(name) for place in below)
    return next((place for place in places if place.is_file()), None)


def _folder_members(
    folder: Path, limits: Mapping[str, int], left_out: LeftOutCounter
) -> Iterator[tuple[str, bytes]]:
    places = {name: place for name in limits if (place := place_in_folder(folder, name))}
    for name, place in places.items():
        yield name, _file(place, limits[name])
    used = set(places.values())
    for below in sorted({place.parent for place in used}):
        for other in sorted(below.iterdir()):
            if not other.is_dir() and other not in used:
                _count(left_out, str(other.relative_to(folder)))


def _count(left_out: LeftOutCounter, name: str) -> None:
    reason = litter(name)
    left_out.add("litter" if reason else "file", reason or "no file of the layout", example=name)


def _published(name: str, limits: Mapping[str, int]) -> str | None:
    """The wanted file that a path in an archive is: as published, or in another folder or none."""
    path = PurePosixPath(name)
    if name in limits or len(path.parts) > 2 or litter(name):
        return name if name in limits else None
    return next((wanted for wanted in limits if path.name in spellings(wanted)), None)


def _zip_members(
    path: Path, limits: Mapping[str, int], left_out: LeftOutCounter
) -> Iterator[tuple[str, bytes]]:
    with open_zip(path) as archive:
        for member in archive.infolist():
            name = name_in_zip(member)
            refuse_escape(path.name, name)
            wanted = _published(name, limits)
            if member.filename.endswith(("/", "\\")):
                continue
            if wanted is None:
                _count(left_out, name)
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ArchiveError(
                    f"{path.name} holds {name[:80]!r}, which is a link; it is refused: pack the "
                    "file itself"
                )
            content = read_in_zip(path.name, archive, member, limits[wanted] + 1)
            if len(content) > limits[wanted]:
                raise _too_large(path.name, name, member.file_size, limits[wanted])
            yield wanted, content


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


def _tar_members(
    path: Path, limits: Mapping[str, int], left_out: LeftOutCounter, most_bytes: int
) -> Iterator[tuple[str, bytes]]:
    try:
        with path.open("rb") as file:
            refuse_other_packing(path.name, file.read(HEAD_BYTES))
            file.seek(0)
            with unpacked(file) as source:
                stream = Bounded(source, path.name, most_bytes)
                with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                    yield from _wanted_of(path.name, tar, limits, left_out)
                while stream.read(CHUNK_BYTES):  # to the end, where gzip keeps its checksum
                    pass
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's own
            raise _broken(path.name) from error
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    except BROKEN_TAR as error:
        raise _broken(path.name) from error


def _wanted_of(
    archive: str, tar: tarfile.TarFile, limits: Mapping[str, int], left_out: LeftOutCounter
) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        refuse_escape(archive, member.name)
        refuse_kind(archive, member)
        name = plain(member.name)
        wanted = _published(name, limits)
        if member.isdir():
            continue
        if wanted is None:
            _count(left_out, name)
        elif not member.isfile():
            raise ArchiveError(
                f"{archive} holds {name[:80]!r}, which is a link; it is refused: pack the file "
                "itself"
            )
        else:
            yield wanted, _content(archive, tar, member, limits[wanted])


def _broken(archive: str) -> ArchiveError:
    return ArchiveError(
        f"{archive} is cut short or no tar archive, plain or packed by gzip or bzip2, and no zip; "
        "fetch it again, or unpack it and give the folder"
    )


def plain(name: str) -> str:
    """A member's path without a leading './'."""
    return str(PurePosixPath(name))


def refuse_kind(archive: str, member: tarfile.TarInfo) -> None:
    """Refuse devices and sparse files, which no dataset has. Raises: ArchiveError."""
    link = member.issym() or member.islnk()
    if not (member.isfile() or member.isdir() or link) or member.issparse():
        raise ArchiveError(
            f"{archive} holds {member.name[:80]!r}, which is a link, a device or a sparse file; "
            "it is refused: pack it anew without that file"
        )


def _content(archive: str, tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise _too_large(archive, member.name, member.size, limit)
    file = tar.extractfile(member)
    content = file.read() if file else b""
    if len(content) != member.size:
        raise ArchiveError(f"{archive} is cut short in {member.name}; fetch it again")
    return content


def _too_large(archive: str, name: str, size_bytes: int, limit: int) -> ArchiveError:
    return ArchiveError(
        f"{archive} holds {name[:80]} of {size_bytes} bytes; at most {limit} are allowed: is it "
        "another dataset's archive?"
    )
