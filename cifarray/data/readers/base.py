"""What readers of archives return, and the checks that hold for all of them.

An archive holds arrays of pixels, or image files, which a reader lists and leaves unread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.data.decode import SUFFIXES
from cifarray.data.left_out import LeftOutCounter
from cifarray.errors import ArchiveError

VALIDATION_NAMES = ("validation", "valid", "val", "dev")
"""What a split for validation is called."""
TEST_SPLITS = ("test", *VALIDATION_NAMES)
"""What `--test-split` may name."""

NOT_USED = "a split that is not used"
"""Why images of a whole split are left out."""


@dataclass(frozen=True)
class SplitArrays:
    """The rows of one split in the archive's order."""

    images: NDArray[np.uint8]
    """[rows, height, width, channels]; may be a strided view."""
    labels: NDArray[np.int16]
    coarse_labels: NDArray[np.int16] | None = None
    parts: tuple[tuple[str, int], ...] = ()
    """Name and rows of each of the archive's parts, in order; empty if it names none."""

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
            f"{entry.name} {split} has images of shape {list(shape[1:])}, but {entry.title} has "
            f"{list(entry.fixed_shape)}; is it another dataset's archive?"
        )
    if shape[0] != arrays.rows:
        raise ArchiveError(
            f"{entry.name} {split} has {shape[0]} images but {arrays.rows} labels; download the "
            "archive again"
        )
    check_published_rows(entry, split, arrays.rows)


def check_published_rows(entry: DatasetEntry, split: str, rows: int) -> None:
    """Refuse a split without rows, or with more than were published. Raises: ArchiveError."""
    if not 1 <= rows <= entry.rows[split]:
        raise ArchiveError(
            f"{entry.name} {split} has {rows} rows; 1 to {entry.rows[split]} (as published) are "
            "allowed"
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
            f"{entry.name} {split} row {row} says that {entry.classes[arrays.labels[row]]} is of "
            f"{entry.coarse_classes[coarse[row]]}; in the published dataset it is of "
            f"{entry.coarse_classes[expected[row]]}"
        )


@dataclass(frozen=True)
class Reading:
    """How an archive of images is read, and the counter of what is left out."""

    crop: bool = False
    """Crop images to the boxes that the archive holds."""
    test_split: str = "test"
    """The source's split that becomes test."""
    left_out: LeftOutCounter = field(default_factory=LeftOutCounter)


@dataclass(frozen=True)
class ListedImages:
    """The images of one split, in the archive's order."""

    labels: NDArray[np.int64]
    names: Sequence[str]
    """What each is called in a sentence: its file, or its place in one."""
    contents: Callable[[], Iterator[bytes]]
    """Reads the encoded images, one after the other."""
    boxes: NDArray[np.float64] | None = None
    """[rows, 4]: left, top, width and height in pixels of what to keep of each; None: all of it."""


@dataclass(frozen=True)
class ImageArchive:
    """What an archive says of its images before any of them is decoded."""

    classes: tuple[str, ...]
    splits: Mapping[str, ListedImages]
    """train and test."""
    sources: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    """What the archive calls each of them."""
    missing: int = 0
    """Images that it lists but does not contain."""
    coarse_classes: tuple[str, ...] = ()
    fine_to_coarse: tuple[int, ...] = ()
    """The superclass of each class, where the archive names superclasses."""


def is_image(name: str) -> bool:
    """Whether a file is called like an image, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def refuse_losses(
    archive: str,
    left_out: LeftOutCounter,
    classes: Sequence[str],
    labels: Mapping[str, NDArray[Any]],
) -> None:
    """Refuse where too much of a class is left out of the rows with these labels per split.

    Raises: ArchiveError.
    """
    kept = {}
    for split, of_split in labels.items():
        counts = np.bincount(of_split.astype(np.int64), minlength=len(classes)).tolist()
        kept[split] = dict(zip(classes, counts, strict=True))
    left_out.refuse_losses(archive, kept)


def check_classes(archive: str, classes: Sequence[str]) -> None:
    """Refuse too few classes, or too many for a label of 16 bits. Raises: ArchiveError."""
    if len(classes) < 2:
        held = f"one class, {classes[0][:80]!r}" if classes else "no class"
        raise ArchiveError(
            f"{archive} contains {held}; at least two classes are required: add images of "
            "another class to train and to test"
        )
    if len(classes) > np.iinfo(np.int16).max:
        raise ArchiveError(
            f"{archive} contains {len(classes)} classes; at most {np.iinfo(np.int16).max} are "
            "allowed: give a folder with fewer classes"
        )
