"""Packs the folder of code that a user gives with --code, and unpacks it where a run executes.

It is stored as a zip whose bytes depend only on names and contents.
"""

import io
import stat
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from cifarray.digests import content_sha256
from cifarray.errors import CifarrayError, JobError

MAX_CODE_BYTES = 16 << 20
MAX_CODE_FILES = 2000
_CACHES = {"__pycache__", "node_modules"}


def pack_code(folder: Path) -> bytes:
    """A zip of the folder's files; hidden files, caches and virtual environments are left out.

    Raises: JobError for a folder that cannot be read, is too large, or contains a link.
    """
    try:
        return _zipped(folder, _code_files(folder))
    except OSError as error:
        raise JobError(
            f"code folder {folder} cannot be read: {error.filename or folder}: {error.strerror}"
        ) from error


def _code_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise JobError(f"no code folder at {folder}; --code requires a folder of Python files")
    found = islice(_files(folder, folder), MAX_CODE_FILES + 1)
    files = sorted(found, key=lambda path: path.relative_to(folder).as_posix())
    _refuse_too_much(folder, files)
    if not any(path.suffix == ".py" for path in files):
        raise JobError(
            f"code folder {folder} contains no Python file; give the folder that contains the "
            "package"
        )
    return files


def _zipped(folder: Path, files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            name = path.relative_to(folder).as_posix()
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def unpack_code(archive: bytes, sha256: str, folder: Path) -> None:
    """Write a packed folder below `folder`, if its bytes are the recorded ones.

    Raises: JobError for other bytes, and for a member that is a link or leaves the folder.
    """
    if content_sha256(archive) != sha256:
        raise JobError(
            f"the run's code has sha256 {content_sha256(archive)}, but {sha256} was recorded; "
            "submit the run again with --code"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            entries = packed.infolist()
            size_bytes = sum(entry.file_size for entry in entries)
            if size_bytes > MAX_CODE_BYTES or len(entries) > MAX_CODE_FILES:
                raise JobError(
                    f"the run's code is larger than {MAX_CODE_BYTES >> 20} MiB, or has more than "
                    f"{MAX_CODE_FILES} files"
                )
            for entry in entries:
                _check_member(entry)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(entry))
    except CifarrayError:
        raise
    except Exception as error:  # a damaged zip may raise almost any error
        raise JobError(
            f"the run's code cannot be unpacked: {' '.join(str(error).split())[:200]}; submit the "
            "run again with --code"
        ) from error


def _files(folder: Path, root: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in _CACHES or entry.suffix == ".pyc":
            continue
        if entry.is_symlink():
            raise JobError(
                f"code folder {root} contains a link, {entry}; replace it by the file itself"
            )
        if entry.is_dir():
            if not (entry / "pyvenv.cfg").exists():
                yield from _files(entry, root)
        elif entry.is_file():
            yield entry
        else:
            raise JobError(f"code folder {root} contains {entry}, which is not a regular file")


def _refuse_too_much(folder: Path, files: list[Path]) -> None:
    sizes = {path: path.stat().st_size for path in files}
    if sum(sizes.values()) > MAX_CODE_BYTES or len(files) > MAX_CODE_FILES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise JobError(
            f"code folder {folder} contains at least {len(files)} files with "
            f"{sum(sizes.values())} bytes, the largest {largest.relative_to(folder)}; --code "
            f"takes at most {MAX_CODE_FILES} files of {MAX_CODE_BYTES >> 20} MiB in total: give "
            "a folder with only the code"
        )


def _check_member(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in entry.filename
    if leaves or ":" in entry.filename or entry.is_dir() or kind not in (0, stat.S_IFREG):
        raise JobError(
            f"the run's code contains {entry.filename!r}, which is a link, a folder or a path "
            "outside the folder; submit the run again with --code"
        )
