"""What packs a file, and files that only stand for another one.

A reader that meets another packing names it: such a file is not broken, and fetching it again
does not help.
"""

import bz2
import gzip
from typing import BinaryIO, cast

from cifarray.errors import ArchiveError

GZIP, BZIP2 = b"\x1f\x8b", b"BZh"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
HEAD_BYTES = 512
OTHERS = {
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
    b"\x1f\x9d": "compress",
}
"""How files begin that other programs unpack."""


def unpacked(file: BinaryIO) -> BinaryIO:
    """What a file packed by gzip or bzip2 holds, or the file itself."""
    head = file.read(len(BZIP2))
    file.seek(0)
    if head.startswith(GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    return cast(BinaryIO, bz2.BZ2File(file)) if head == BZIP2 else file


def refuse_other_packing(name: str, head: bytes) -> None:
    """Refuse by its name what is sound and not read here. Raises: ArchiveError."""
    refuse_pointer(name, head)
    for magic, packing in OTHERS.items():
        if head.startswith(magic):
            raise ArchiveError(
                f"{name} is packed by {packing}, which is not read here; unpack it and give the "
                "folder"
            )
    if head[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ArchiveError(
            f"{name} is a web page, not an archive; download the file that the page offers"
        )


def refuse_pointer(name: str, head: bytes) -> None:
    """Refuse what Git LFS leaves in a file's place. Raises: ArchiveError."""
    if head.startswith(LFS_POINTER):
        raise ArchiveError(
            f"{name} is a Git LFS pointer, a text of a few lines in place of the file itself; run "
            "`git lfs pull` in that checkout, or download the files with `hf download --repo-type "
            "dataset --local-dir DIR`"
        )
