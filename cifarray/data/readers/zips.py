"""Zips: opening one, the names in it, the bytes of a member."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cifarray.errors import ArchiveError

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
ENCRYPTED = 0x1
"""The flag of a member of a zip that a password protects."""


def name_in_zip(member: zipfile.ZipInfo) -> str:
    """A member's path, with `/` between its folders, without a leading './'."""
    return str(PurePosixPath(member.filename.replace("\\", "/")))


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
            f"{archive} is packed by a method that is not read here ({error}); unpack it and give "
            "the folder"
        ) from error
    except (*BROKEN_ZIP, OSError) as error:
        raise ArchiveError(
            f"{archive} is damaged in {member.filename[:80]!r}; fetch it again"
        ) from error


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip. Raises: ArchiveError if it is none."""
    try:
        archive = zipfile.ZipFile(path)
    except (*BROKEN_ZIP, OSError) as error:
        raise ArchiveError(f"{path.name} is cut short or no zip; fetch it again") from error
    with archive:
        yield archive
