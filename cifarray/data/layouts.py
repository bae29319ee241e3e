"""The layouts that archives come in, and what reads each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cifarray.data.archives import cub200, huggingface, imagefolder
from cifarray.data.archives.arrays import SplitArrays
from cifarray.data.archives.cifar import read_cifar
from cifarray.data.archives.files import ArchiveFiles, Wanted
from cifarray.data.archives.idx import read_idx
from cifarray.data.archives.images import ImageArchive
from cifarray.data.catalog import DatasetEntry


@dataclass(frozen=True)
class ImageLayout:
    """A layout of image files."""

    wanted: Wanted
    """Which files are read, and so are what the dataset's digest depends on."""
    listed: Callable[[DatasetEntry, ArchiveFiles, bool], ImageArchive]
    """Lists the images; the last argument asks for the boxes to crop them to."""
    looks: str
    """What a person finds in such a folder."""
    boxes: bool = False
    """Whether it has any."""


LAYOUTS: dict[str, Callable[[DatasetEntry, Path], Mapping[str, SplitArrays]]] = {
    "cifar-pickle": read_cifar,
    "idx": read_idx,
}
"""Those of arrays of pixels."""

IMAGE_LAYOUTS: dict[str, ImageLayout] = {
    "cub200": ImageLayout(cub200.is_wanted, cub200.list_cub200, "images.txt beside images/", True),
    "imagefolder": ImageLayout(
        imagefolder.is_wanted,
        imagefolder.list_image_folder,
        "train/CLASS/x.jpg and test/CLASS/y.png",
    ),
    "huggingface": ImageLayout(
        huggingface.is_wanted, huggingface.list_hugging_face, "train-*.parquet and test-*.parquet"
    ),
}
"""Those of images in files."""
