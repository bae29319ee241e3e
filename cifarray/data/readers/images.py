"""What readers of image files return: classes, and the images of each split in order, unread."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.data.formats import SUFFIXES
from cifarray.data.left_out import LeftOutCounter
from cifarray.errors import ArchiveError

VALIDATION_NAMES = ("validation", "valid", "val", "dev")
"""What a split for validation is called."""
TEST_SPLITS = ("test", *VALIDATION_NAMES)
"""What `--test-split` may name."""

NOT_USED = "a split that is not used"
"""Why images of a whole split are left out."""


@dataclass(frozen=True)
class Reading:
    """How an archive of images is read, and who counts what is left out."""

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
    """Images that it lists and does not hold."""
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
            f"{archive} holds {held}; a network tells at least two classes apart: add images of "
            "another to train and to test"
        )
    if len(classes) > np.iinfo(np.int16).max:
        raise ArchiveError(
            f"{archive} holds {len(classes)} classes; at most {np.iinfo(np.int16).max} are "
            "allowed: give a folder of fewer"
        )
