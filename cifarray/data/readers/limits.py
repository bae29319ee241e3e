"""What no file of an archive may be: too large, called like no file, out of its folder."""

import os
import tempfile
from collections.abc import Callable, Container
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from unicodedata import category

from cifarray.errors import ArchiveError

MOST_FILE_BYTES = 64 << 20
"""Of one image or one list."""
MOST_RATIO = 50
"""How many times its own size an archive may unpack to: images hardly become smaller in one."""
LEAST_BUDGET_BYTES = 64 << 20
TOO_LARGE = (
    f"unpacks to more than {MOST_RATIO} times its own size; it is refused: unpack it yourself"
)

Wanted = Callable[[str], bool]
"""Whether a layout has a use for the file at this path."""


def budget(path: Path) -> int:
    """The bytes that an archive may unpack to."""
    return max(LEAST_BUDGET_BYTES, MOST_RATIO * path.stat().st_size)


def is_plain(name: str) -> bool:
    """Whether every character of a name shows."""
    return all(c.isprintable() or category(c) == "Zs" for c in name)  # Zs: any blank


def checked(archive: str, name: str) -> str:
    """The name of a file or folder, unless it leaves the archive or is no text."""
    refuse_escape(archive, name)
    if not is_plain(name):
        raise ArchiveError(f"{archive} holds {name[:80]!a}, whose name is no plain text; rename it")
    return name


def refuse_escape(archive: str, name: str) -> None:
    """Refuse a name that leaves the archive. Raises: ArchiveError."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise ArchiveError(
            f"{archive} holds {name[:80]!r}, which leaves its folder; it is refused: pack it anew "
            "without that file"
        )


def refuse_twice(archive: str, name: str, known: Container[str]) -> None:
    """Refuse a name that is known already. Raises: ArchiveError."""
    if name in known:
        raise ArchiveError(
            f"{archive} holds {name[:80]!r} twice; it is refused: take one of them away"
        )


def limited(archive: str, name: str, content: bytes) -> bytes:
    """The content of a file, unless it is too large for an image. Raises: ArchiveError."""
    if len(content) > MOST_FILE_BYTES:
        raise ArchiveError(
            f"{archive} holds {name[:80]!r} of more than {MOST_FILE_BYTES} bytes, which is too "
            "much for an image; it is refused: take it away"
        )
    return content


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
            f"the temporary folder {tempfile.gettempdir()} cannot take the archive's images "
            f"({error.strerror}); make room there, or set TMPDIR to a folder that has room"
        ) from error
    return offset
