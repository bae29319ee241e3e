"""Read the expected files of a tar, a zip or a folder into memory; nothing is written to disk."""

import tarfile
import zipfile
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.containers import (
    is_folder_in_zip,
    is_link_in_zip,
    open_tar,
    open_zip,
    read_in_zip,
    refuse_link,
    refuse_pointer,
    refuse_twice,
    tar_members,
    why_no_sample,
    zip_members,
)
from cifarray.errors import ArchiveError

TAR_OVERHEAD_BYTES = 4 << 20
"""Headers, padding and small files such as a readme; beyond the expected files themselves."""


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
    found = set[str]()
    for name, content in pairs:
        refuse_twice(path.name, name, found)
        found.add(name)
        refuse_pointer(f"{path.name}, {name},", content)
        yield name, content


def refuse_missing(archive: str, names: Iterable[str], found: Container[str]) -> None:
    """Refuse an archive that lacks one of these files. Raises: ArchiveError."""
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ArchiveError(
            f"{archive} lacks {missing[0]}{more}; is it another dataset's archive? Leave "
            "--archive out to download the published one"
        )


def place_in_folder(folder: Path, name: str) -> Path | None:
    """Where a folder has this file: under the archive's own sub-folder, or at its top."""
    below = (folder / PurePosixPath(name).parent, folder)
    places = (place / spelled for spelled in _spellings(name) for place in below)
    return next((place for place in places if place.is_file()), None)


def _spellings(name: str) -> tuple[str, ...]:
    """What a published file is called where people have unpacked it: the idx files, mostly."""
    bare = PurePosixPath(name).name
    names = [bare, bare.removesuffix(".gz")]
    names += [spelled.replace("-idx", ".idx") for spelled in names]
    return tuple(dict.fromkeys(names))


def _published(name: str, limits: Mapping[str, int]) -> str | None:
    """The wanted file that a path in an archive is: as published, or in another folder or none."""
    path = PurePosixPath(name)
    if name in limits or len(path.parts) > 2 or why_no_sample(name):
        return name if name in limits else None
    return next((wanted for wanted in limits if path.name in _spellings(wanted)), None)


def _count(left_out: LeftOutCounter, name: str) -> None:
    reason = why_no_sample(name)
    left_out.add("litter" if reason else "file", reason or "not a file of the layout", example=name)


def _folder_members(
    folder: Path, limits: Mapping[str, int], left_out: LeftOutCounter
) -> Iterator[tuple[str, bytes]]:
    places = {name: place for name in limits if (place := place_in_folder(folder, name))}
    for name, place in places.items():
        yield name, _read(place, limits[name])
    used = set(places.values())
    for below in sorted({place.parent for place in used}):
        for other in sorted(below.iterdir()):
            if not other.is_dir() and other not in used:
                _count(left_out, str(other.relative_to(folder)))


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be read: {error.strerror}; change its permissions"
        ) from error
    if len(content) > limit_bytes:
        raise ArchiveError(
            f"{path.name} is larger than the {limit_bytes} bytes allowed; it is refused: "
            "download it again"
        )
    return content


def _zip_members(
    path: Path, limits: Mapping[str, int], left_out: LeftOutCounter
) -> Iterator[tuple[str, bytes]]:
    with open_zip(path) as archive:
        for name, member in zip_members(path.name, archive):
            wanted = _published(name, limits)
            if is_folder_in_zip(member):
                continue
            if wanted is None:
                _count(left_out, name)
                continue
            if is_link_in_zip(member):
                refuse_link(path.name, name)
            content = read_in_zip(path.name, archive, member, limits[wanted] + 1)
            if len(content) > limits[wanted]:
                raise _too_large(path.name, name, member.file_size, limits[wanted])
            yield wanted, content


def _tar_members(
    path: Path, limits: Mapping[str, int], left_out: LeftOutCounter, most_bytes: int
) -> Iterator[tuple[str, bytes]]:
    with open_tar(path, most_bytes) as tar:
        for name, member in tar_members(path.name, tar):
            wanted = _published(name, limits)
            if member.isdir():
                continue
            if wanted is None:
                _count(left_out, name)
                continue
            if not member.isfile():
                refuse_link(path.name, name)
            yield wanted, _content(path.name, tar, member, limits[wanted])


def _content(archive: str, tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise _too_large(archive, member.name, member.size, limit)
    file = tar.extractfile(member)
    content = file.read() if file else b""
    if len(content) != member.size:
        raise ArchiveError(f"{archive} is truncated in {member.name}; download it again")
    return content


def _too_large(archive: str, name: str, size_bytes: int, limit: int) -> ArchiveError:
    return ArchiveError(
        f"{archive} contains {name[:80]} of {size_bytes} bytes; at most {limit} are allowed: is "
        "it another dataset's archive?"
    )
