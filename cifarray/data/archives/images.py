"""What readers of image files return: classes, and the images of each split in order, unread."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifarray.errors import ArchiveError

SUFFIXES = (".jpg", ".jpeg", ".png")


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
    missing: int = 0
    """Images that it lists and does not hold."""
    remarks: tuple[str, ...] = ()
    """What a person should know of how it was read."""


def is_image(name: str) -> bool:
    """Whether a file is called like an image, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def check_classes(archive: str, classes: Sequence[str]) -> None:
    """Refuse too few classes, or too many for a label of 16 bits. Raises: ArchiveError."""
    if len(classes) < 2:
        held = f"one class, {classes[0][:80]!r}" if classes else "no class"
        raise ArchiveError(f"{archive} holds {held}; a network tells at least two classes apart")
    if len(classes) > np.iinfo(np.int16).max:
        raise ArchiveError(
            f"{archive} holds {len(classes)} classes; at most {np.iinfo(np.int16).max} are allowed"
        )
