"""The layouts of archives, and the reader of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cifarray.data.catalog import DatasetEntry
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers import cub200, huggingface, imagefolder
from cifarray.data.readers.base import ImageArchive, Reading, SplitArrays
from cifarray.data.readers.cifar import read_cifar
from cifarray.data.readers.containers import Wanted
from cifarray.data.readers.files import ArchiveFiles
from cifarray.data.readers.idx import read_idx


@dataclass(frozen=True)
class ImageLayout:
    """A layout of image files."""

    wanted: Callable[[str], Wanted]
    """Which files are read where a split becomes test, and so are what the digest depends on."""
    listed: Callable[[DatasetEntry, ArchiveFiles, Reading], ImageArchive]
    """Lists the images, and counts what is left out."""
    looks: str
    """The files in such a folder, for messages."""
    boxes: bool = False
    """Whether it has boxes to crop images to."""
    splits: bool = True
    """Whether a split called otherwise can become test."""


ReadArrays = Callable[[DatasetEntry, Path, LeftOutCounter], Mapping[str, SplitArrays]]

LAYOUTS: dict[str, ReadArrays] = {
    "cifar-pickle": read_cifar,
    "idx": read_idx,
}
"""Those of arrays of pixels."""

IMAGE_LAYOUTS: dict[str, ImageLayout] = {
    "cub200": ImageLayout(
        lambda test_split: cub200.is_wanted,
        cub200.list_cub200,
        "images.txt next to images/",
        boxes=True,
        splits=False,
    ),
    "imagefolder": ImageLayout(
        imagefolder.wanted,
        imagefolder.list_image_folder,
        "train/CLASS/x.jpg and test/CLASS/y.png",
    ),
    "huggingface": ImageLayout(
        lambda test_split: huggingface.is_wanted,
        huggingface.list_hugging_face,
        "train-*.parquet and test-*.parquet",
    ),
}
"""Those of images in files."""
