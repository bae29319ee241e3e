"""Opens tars, zips and other archive files, and refuses unsafe content in them.

An archive comes from a stranger: names that leave its folder, links, devices, sizes beyond a limit
are refused, and files that a system or an editor left next to the samples are skipped. An
unsupported compression is named in the error: the file is not broken, and downloading it again does
not help.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn, cast
from unicodedata import category

from cifarray.errors import ArchiveError

Wanted = Callable[[str], bool]
"""Whether a layout has a use for the file at this path."""

MOST_FILE_BYTES = 64 << 20
"""Of one image or one list."""
MOST_RATIO = 50
"""How many times its own size an archive may unpack to; images hardly compress."""
LEAST_BUDGET_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
HEAD_BYTES = 512

GZIP, BZIP2 = b"\x1f\x8b", b"BZh"
OTHER_COMPRESSIONS = {
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
    b"\x1f\x9d": "compress",
}
"""First bytes of files that other programs unpack."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

BROKEN_TAR = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
"""Errors of tarfile, gzip and bz2 for a damaged file, besides an OSError without a number."""
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
"""Errors of zipfile for a damaged file, besides OSError; a name that is no text is a ValueError."""
ENCRYPTED = 0x1
"""The flag of a member of a zip that a password protects."""

SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recently-snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)
SYSTEM_FILES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "icon\uf00d",  # the same over SMB
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
    }
)
SYSTEM_ENDINGS = (":zone.identifier", "@synoeastream", "@synoresource", "~")
"""Ends of names of files that Windows, Synology's drives and editors put next to a file."""
NOTES = ("readme", "license", "licence", "copying", "citation", "changelog")
NOTE_SUFFIXES = ("", ".md", ".txt", ".rst", ".html", ".htm", ".pdf", ".cff", ".bib")
HIDDEN = "hidden or system file"


def why_no_sample(name: str) -> str | None:
    """Why the file at this path cannot be a sample; None if it may be one."""
    path = PurePosixPath(name.lower())
    if any(map(is_hidden_folder, path.parts[:-1])) or path.name.startswith("."):
        return HIDDEN
    if path.name in SYSTEM_FILES or path.name.endswith(SYSTEM_ENDINGS):
        return HIDDEN
    note = path.name.startswith(NOTES) and path.suffix in NOTE_SUFFIXES
    return "readme, license or the like" if note else None


def is_hidden_folder(name: str) -> bool:
    """Whether a folder of this name holds no samples: it is hidden, or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_plain(name: str) -> bool:
    """Whether every character of a name is printable."""
    return all(c.isprintable() or category(c) == "Zs" for c in name)  # Zs: any blank


def checked_name(archive: str, name: str) -> str:
    """The name of a file or folder. Raises: ArchiveError if it leaves the archive or is no text."""
    refuse_escape(archive, name)
    if not is_plain(name):
        raise ArchiveError(
            f"{archive} contains {name[:80]!a}, whose name is not plain text; rename it"
        )
    return name


def refuse_escape(archive: str, name: str) -> None:
    """Refuse a name that leaves the archive. Raises: ArchiveError."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise ArchiveError(
            f"{archive} contains {name[:80]!r}, a path outside the archive; it is refused: "
            "repack the archive without that file"
        )


def refuse_link(archive: str, name: str) -> NoReturn:
    """Refuse a link where a file is needed. Raises: ArchiveError."""
    raise ArchiveError(
        f"{archive} contains {name[:80]!r}, which is a link; it is refused: pack the file itself"
    )


def refuse_twice(archive: str, name: str, known: Container[str]) -> None:
    """Refuse a name that is known already. Raises: ArchiveError."""
    if name in known:
        raise ArchiveError(
            f"{archive} contains {name[:80]!r} twice; it is refused: remove one of them"
        )


def refuse_pointer(name: str, head: bytes) -> None:
    """Refuse what Git LFS leaves in a file's place. Raises: ArchiveError."""
    if head.startswith(LFS_POINTER):
        raise ArchiveError(
            f"{name} is a Git LFS pointer instead of the file itself; run `git lfs pull` in that "
            "checkout, or download the files with `hf download --repo-type dataset --local-dir "
            "DIR`"
        )


def limited(archive: str, name: str, content: bytes) -> bytes:
    """The content of a file, unless it is too large for an image. Raises: ArchiveError."""
    if len(content) > MOST_FILE_BYTES:
        raise ArchiveError(
            f"{archive} contains {name[:80]!r} of more than {MOST_FILE_BYTES} bytes, which is "
            "too large for an image; it is refused: remove it"
        )
    return content


def unpacked_limit(path: Path) -> int:
    """The bytes that an archive of images may unpack to."""
    return max(LEAST_BUDGET_BYTES, MOST_RATIO * path.stat().st_size)


@contextmanager
def open_tar(path: Path, limit_bytes: int) -> Iterator[tarfile.TarFile]:
    """A tar, plain or compressed by gzip or bzip2, that is read once from beginning to end.

    Raises: ArchiveError, also while it is read, if it is broken or unpacks to more than the limit.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            _refuse_other_content(path.name, head)
            file.seek(0)
            source: BinaryIO = file
            if head.startswith(GZIP):
                source = cast(BinaryIO, gzip.GzipFile(fileobj=file))
            elif head.startswith(BZIP2):
                source = cast(BinaryIO, bz2.BZ2File(file))
            stream = _Bounded(source, path.name, limit_bytes)
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                yield tar
            while stream.read(CHUNK_BYTES):  # to the end, where gzip keeps its checksum
                pass
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's own
            raise _broken_tar(path.name) from error
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    except BROKEN_TAR as error:
        raise _broken_tar(path.name) from error


def tar_members(archive: str, tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Files, folders and links by their paths without a leading './'.

    Raises: ArchiveError for a name that leaves the archive, a device or a sparse file.
    """
    for member in tar:
        refuse_escape(archive, member.name)
        link = member.issym() or member.islnk()
        if not (member.isfile() or member.isdir() or link) or member.issparse():
            raise ArchiveError(
                f"{archive} contains {member.name[:80]!r}, which is a link, a device or a sparse "
                "file; it is refused: repack the archive without that file"
            )
        yield str(PurePosixPath(member.name)), member


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip. Raises: ArchiveError if it is none."""
    try:
        archive = zipfile.ZipFile(path)
    except (*BROKEN_ZIP, OSError) as error:
        raise ArchiveError(f"{path.name} is truncated or not a zip; download it again") from error
    with archive:
        yield archive


def zip_members(archive: str, opened: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Files, folders and links by their paths without a leading './', whatever Windows wrote there.

    Raises: ArchiveError for a name that leaves the archive.
    """
    for member in opened.infolist():
        name = str(PurePosixPath(member.filename.replace("\\", "/")))
        refuse_escape(archive, name)
        yield name, member


def is_folder_in_zip(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a folder; its own `is_dir` fails where it has no name."""
    return member.filename.endswith(("/", "\\"))


def is_link_in_zip(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a link, as Unix packs them."""
    return stat.S_ISLNK(member.external_attr >> 16)


def read_in_zip(
    archive: str, opened: zipfile.ZipFile, member: zipfile.ZipInfo, most_bytes: int
) -> bytes:
    """The first bytes of a member. Raises: ArchiveError."""
    if member.flag_bits & ENCRYPTED:
        raise ArchiveError(
            f"{archive} is encrypted ({member.filename[:80]!r}); unpack it with its password and "
            "give the folder"
        )
    try:
        with opened.open(member) as file:
            return file.read(most_bytes)
    except NotImplementedError as error:  # Deflate64, as Windows packs what is large
        raise ArchiveError(
            f"{archive} is compressed with a method that cifarray does not support ({error}); "
            "unpack it and give the folder"
        ) from error
    except (*BROKEN_ZIP, OSError) as error:
        raise ArchiveError(
            f"{archive} is damaged in {member.filename[:80]!r}; download it again"
        ) from error


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
            f"the temporary folder {tempfile.gettempdir()} cannot store the archive's images "
            f"({error.strerror}); free some space there, or set TMPDIR to a folder with enough "
            "space"
        ) from error
    return offset


class _Bounded(io.RawIOBase):
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
                f"{self.name} unpacks to more than the published archive contains; it is refused"
            )
        return content


def _refuse_other_content(name: str, head: bytes) -> None:
    """Refuse by its name what is sound and not read here. Raises: ArchiveError."""
    refuse_pointer(name, head)
    for magic, compression in OTHER_COMPRESSIONS.items():
        if head.startswith(magic):
            raise ArchiveError(
                f"{name} is compressed with {compression}, which cifarray does not support; "
                "unpack it and give the folder"
            )
    if head[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ArchiveError(
            f"{name} is a web page, not an archive; download the file that the page links to"
        )


def _broken_tar(archive: str) -> ArchiveError:
    return ArchiveError(
        f"{archive} is truncated, or is neither a zip nor a tar (plain, gzip or bzip2); download "
        "it again, or unpack it and give the folder"
    )
