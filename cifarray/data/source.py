"""Which archive a dataset is made from, where it is, and its checksum."""

import hashlib
import tarfile
import urllib.parse
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cifarray.data.catalog import DatasetEntry
from cifarray.data.download import Download, download, is_address, shown
from cifarray.data.progress import Progress
from cifarray.data.readers.files import FolderFiles
from cifarray.data.readers.members import place_in_folder
from cifarray.data.readers.registry import IMAGE_LAYOUTS
from cifarray.digests import content_sha256
from cifarray.errors import ArchiveError
from cifarray.user_folders import cache_folder, expanded

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """An archive on this machine."""

    path: Path
    name: str
    sha256: str
    published: bool
    """Whether every file has the md5 that the catalog gives."""


def find_source(
    entry: DatasetEntry, archive: str | None, progress: Progress, test_split: str = "test"
) -> Source:
    """The archive at a path or an address, else at its official address, downloaded if need be.

    Raises:
        ArchiveError: it is not there, cannot be fetched, or is not what was published.
    """
    if not entry.rows and (archive is None or is_address(archive)):
        raise ArchiveError(
            f"your own images are read from this machine, but {entry.name} has "
            f"{'no --archive' if archive is None else f'the address {shown(archive)}'}; give the "
            "path of a folder, tar or zip"
        )
    if archive is None:
        path = _fetch_official(entry, progress)
    elif is_address(archive):
        path = _fetch_from(entry, archive, progress)
    else:
        path = Path(expanded(archive))
    try:
        return _source(entry, path, archive, progress, test_split)
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be read: {error.strerror}; give another path or address"
        ) from error


def _source(
    entry: DatasetEntry, path: Path, archive: str | None, progress: Progress, test_split: str
) -> Source:
    """The checked archive at a path. Raises: ArchiveError; OSError where it cannot be looked at."""
    if not path.exists():
        raise ArchiveError(
            f"no archive at {archive}; give a path or an http(s) address that exists"
        )
    name = path.name if archive is None else _last_name(archive)
    if path.is_dir():
        if entry.layout in IMAGE_LAYOUTS:
            return _images_source(entry, path, name, progress, test_split)
        return _folder_source(entry, path, name)
    several = len(entry.archives) > 1
    if not path.is_file() or (
        several and not zipfile.is_zipfile(path) and not tarfile.is_tarfile(path)
    ):
        names = ", ".join(file.name for file in entry.archives)
        raise ArchiveError(
            f"{archive} is not an archive of {entry.title}, which is named {names}"
            + "; give their folder or base address, or a zip or tar of them" * several
        )
    progress.start(f"checking {name}", path.stat().st_size, "bytes")
    sha256, md5 = _sums(path, progress)
    published = [file.md5 for file in entry.archives] == [md5]
    return Source(path, name, sha256, published)


def combined_sha256(sums: Iterable[tuple[str, str]]) -> str:
    """One checksum of several files: sha256 over the sorted lines "name sha256"."""
    lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(sums))
    return content_sha256(lines)


def _fetch_official(entry: DatasetEntry, progress: Progress) -> Path:
    folder = cache_folder() / entry.name
    paths = [
        download(Download(file.url, folder / file.name, file.size_bytes, file.md5), progress)
        for file in entry.archives
    ]
    return paths[0] if len(paths) == 1 else folder


def _fetch_from(entry: DatasetEntry, address: str, progress: Progress) -> Path:
    """Downloads from another address: of one file, or of the folder with several files."""
    folder = cache_folder() / "other" / content_sha256(address)[:16]
    limits = {file.name: 2 * file.size_bytes for file in entry.archives}
    if len(limits) == 1:
        (limit,) = limits.values()
        return download(Download(address, folder / _last_name(address), limit), progress)
    for name, limit in limits.items():
        url = f"{address.rstrip('/')}/{name}"
        download(Download(url, folder / name, limit), progress)
    return folder


def _last_name(archive: str) -> str:
    """The file or folder name at the end of a path or an address."""
    path = urllib.parse.urlsplit(shown(archive)).path if is_address(archive) else archive
    name = PurePosixPath(path).name
    return name if name.strip(".") else "archive"


def _images_source(
    entry: DatasetEntry, folder: Path, name: str, progress: Progress, test_split: str
) -> Source:
    """A folder of image files: its checksum is over those that its layout reads."""
    files = FolderFiles(folder, IMAGE_LAYOUTS[entry.layout].wanted(test_split))
    if not files.names:
        raise ArchiveError(
            f"{folder} contains no file of the layout {entry.layout}; arrange it as "
            f"{IMAGE_LAYOUTS[entry.layout].looks}, or give another folder"
        )
    total = sum(files.place(file).stat().st_size for file in files.names)
    progress.start(f"checking {name}", total, "bytes")
    sums = [(file, _sums(files.place(file), progress)[0]) for file in files.names]
    return Source(folder, name, combined_sha256(sums), published=False)


def _folder_source(entry: DatasetEntry, folder: Path, name: str) -> Source:
    """A folder: its checksum is over the expected files that are there."""
    sums, md5s = [], set()
    forms = (entry.members, entry.binary_members)
    names = [name for form in forms for members in form.values() for name in members]
    for member in names:
        place = place_in_folder(folder, member)
        if place:
            sha256, md5 = _sums(place, None)
            sums.append((place.name, sha256))
            md5s.add(md5)
    if not sums:
        raise ArchiveError(_other_content(entry, folder, names))
    published = md5s == {file.md5 for file in entry.archives}
    return Source(folder, name, combined_sha256(sums), published)


def _other_content(entry: DatasetEntry, folder: Path, names: Sequence[str]) -> str:
    """The error for a folder without any of a dataset's files, with what it contains."""
    if any(next(folder.glob(f"{below}*.parquet"), None) for below in ("", "*/", "*/*/")):
        return (
            f"{folder} contains Parquet, the Hub's format of {entry.title}; prepare it under a "
            f"name of your own: `cifarray data prepare my-{entry.name} --layout huggingface "
            f"--archive {folder}`"
        )
    expected = ", ".join(PurePosixPath(name).name for name in names[:6])
    return (
        f"{folder} contains none of the files of {entry.title} ({expected}); give the folder, "
        "tar or zip with these files, or leave --archive out to download them"
    )


def _sums(path: Path, progress: Progress | None) -> tuple[str, str]:
    """sha256 and md5 in one pass."""
    sha256: Any = hashlib.sha256()
    md5: Any = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            sha256.update(chunk)
            md5.update(chunk)
            if progress:
                progress.advance(len(chunk))
    return sha256.hexdigest(), md5.hexdigest()
