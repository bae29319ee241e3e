"""What every archive reader returns, and the checks that hold for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.errors import ArchiveError


@dataclass(frozen=True)
class SplitArrays:
    """The rows of one split in the archive's order."""

    images: NDArray[np.uint8]
    """[rows, height, width, channels]; may be a strided view."""
    labels: NDArray[np.int16]
    coarse_labels: NDArray[np.int16] | None = None
    parts: tuple[tuple[str, int], ...] = ()
    """Name and rows of each of the archive's parts, in order; empty where it names none."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def image_bytes(self) -> int:
        """Of one image."""
        return int(np.prod(self.images.shape[1:]))

    def column(self, row_ids: NDArray[np.int64]) -> pa.Array:
        """The pixels of these rows' images."""
        pixels = pa.py_buffer(np.ascontiguousarray(self.images[row_ids]))
        kind = pa.binary(self.image_bytes)
        return pa.Array.from_buffers(kind, len(row_ids), [None, pixels])


def check_splits(entry: DatasetEntry, splits: Mapping[str, SplitArrays]) -> None:
    """Refuse arrays that cannot be this dataset.

    Raises:
        ArchiveError: wrong shapes, too many rows or none, labels that are no class, or coarse
            labels that disagree with the catalog.
    """
    for split, arrays in splits.items():
        _check_images(entry, split, arrays)
        _check_labels(entry.classes, f"{entry.name} {split} labels", arrays.labels)
        if entry.coarse_classes:
            _check_coarse(entry, split, arrays)


def _check_images(entry: DatasetEntry, split: str, arrays: SplitArrays) -> None:
    shape = arrays.images.shape
    if arrays.images.dtype != np.uint8 or shape[1:] != entry.shape:
        raise ArchiveError(
            f"{entry.name} {split} holds images of shape {list(shape[1:])}; "
            f"{entry.title} has {list(entry.fixed_shape)}; is it another dataset's archive?"
        )
    if shape[0] != arrays.rows:
        raise ArchiveError(
            f"{entry.name} {split} holds {shape[0]} images and {arrays.rows} labels; "
            "fetch the archive again"
        )
    if not 1 <= arrays.rows <= entry.rows[split]:
        raise ArchiveError(
            f"{entry.name} {split} holds {arrays.rows} rows; 1 to {entry.rows[split]} "
            f"(as published) are allowed"
        )


def _check_labels(classes: tuple[str, ...], what: str, labels: NDArray[np.int16]) -> None:
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise ArchiveError(f"{what} hold {wrong[0]}; 0 to {len(classes) - 1} are allowed")


def _check_coarse(entry: DatasetEntry, split: str, arrays: SplitArrays) -> None:
    coarse = arrays.coarse_labels
    if coarse is None or len(coarse) != arrays.rows:
        raise ArchiveError(f"{entry.name} {split} lacks a coarse label for each of its rows")
    _check_labels(entry.coarse_classes, f"{entry.name} {split} coarse labels", coarse)
    expected = np.array(entry.fine_to_coarse, dtype=np.int16)[arrays.labels]
    (wrong,) = np.nonzero(coarse != expected)
    if len(wrong):
        row = int(wrong[0])
        raise ArchiveError(
            f"{entry.name} {split} row {row} says {entry.classes[arrays.labels[row]]} is of "
            f"{entry.coarse_classes[coarse[row]]}; as published it is of "
            f"{entry.coarse_classes[expected[row]]}"
        )
