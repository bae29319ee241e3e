"""Read the idx files of the MNIST family: a big-endian header, then the bytes that it declares."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.base import SplitArrays
from cifarray.data.readers.members import read_members, refuse_missing
from cifarray.errors import ArchiveError

UNSIGNED_BYTES = 0x08
"""The header's code for uint8: http://yann.lecun.com/exdb/mnist has the others."""
IDX = bytes([0, 0, UNSIGNED_BYTES])
"""How an idx file of bytes begins, once it is unpacked."""
HEADER_BYTES = 4 + 3 * 4
GZIP_OVERHEAD_BYTES = 1 << 16


def read_idx(
    entry: DatasetEntry, path: Path, left_out: LeftOutCounter | None = None
) -> dict[str, SplitArrays]:
    """Every split of idx files, gzipped or not, rows in their order. Raises: ArchiveError."""
    split_of = {name: split for split, names in entry.members.items() for name in names}
    limits = {
        name: entry.rows[split] * entry.image_bytes + HEADER_BYTES
        for name, split in split_of.items()
    }
    packed = {name: limit + GZIP_OVERHEAD_BYTES for name, limit in limits.items()}
    arrays: dict[str, NDArray[np.uint8]] = {}
    for name, content in read_members(path, packed, left_out):
        dimensions = 3 if name == entry.members[split_of[name]][0] else 1
        plain = content.startswith(IDX)
        inside = content if plain else unpack(name, content, limits[name])
        arrays[name] = parse_idx(name, inside, dimensions)
    refuse_missing(path.name, limits, arrays)
    return {
        split: SplitArrays(
            images=arrays[images][..., np.newaxis], labels=arrays[labels].astype(np.int16)
        )
        for split, (images, labels) in entry.members.items()
    }


def unpack(name: str, content: bytes, limit_bytes: int) -> bytes:
    """The inside of a gzip file, which may have at most this many bytes. Raises: ArchiveError."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            inside = file.read(limit_bytes + 1)  # past the end, where the checksum is
    except (OSError, EOFError, zlib.error) as error:
        raise ArchiveError(f"{name} is truncated or not a gzip file; download it again") from error
    if len(inside) > limit_bytes:
        raise ArchiveError(
            f"{name} unpacks to more than the published file contains; it is refused"
        )
    return inside


def parse_idx(name: str, content: bytes, dimensions: int) -> NDArray[np.uint8]:
    """The array that an idx file holds; its header must declare exactly the bytes that follow.

    Raises:
        ArchiveError: no idx header of that many dimensions, or another number of bytes.
    """
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, UNSIGNED_BYTES, dimensions]) or len(content) < start:
        raise ArchiveError(
            f"{name} begins with {content[:4].hex() or 'nothing'}; an idx file of bytes with "
            f"{dimensions} dimensions begins with 000008{dimensions:02x}; download it again"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    declared = 1
    for size in shape:
        declared *= size
    if declared != len(content) - start:
        raise ArchiveError(
            f"{name} declares {list(shape)}, {declared} bytes, and {len(content) - start} "
            "follow; download it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
