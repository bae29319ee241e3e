"""The content of an archive, ready to be written: all labels checked, all images decoded once.

A JPEG or PNG file keeps its bytes, other formats become PNG without loss. Where all images are of
one small size they are stored as pixels, which are read without decoding.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.data.decode import STORED_FORMATS, decode, decode_file, with_channels
from cifarray.data.parquet import SplitRows
from cifarray.data.progress import Progress
from cifarray.data.readers.base import (
    ImageArchive,
    ListedImages,
    Reading,
    check_published_rows,
    refuse_losses,
)
from cifarray.data.readers.containers import keep
from cifarray.data.readers.files import open_files
from cifarray.data.readers.registry import IMAGE_LAYOUTS
from cifarray.data.source import Source
from cifarray.data.statistics import count_picture
from cifarray.errors import ArchiveError

if TYPE_CHECKING:
    from PIL import Image

LARGEST_FIXED = 256
"""Height and width up to which images of one size are stored as pixels."""
UNREADABLE = "unreadable"
"""Reason for leaving out an image that does not decode, which shows only when it is read."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Content:
    """A dataset's splits, and what its manifest says of them."""

    shape: Shape | None
    """None if images are stored encoded."""
    classes: tuple[str, ...]
    splits: Mapping[str, SplitRows]
    pixels: NDArray[np.int64]
    """[channels, 256]: how often each value occurs in train."""
    missing: int = 0
    converted: Mapping[str, int] = field(default_factory=dict)
    """Images of each format that were stored as PNG."""
    coarse_classes: tuple[str, ...] = ()
    fine_to_coarse: tuple[int, ...] = ()


@dataclass(frozen=True)
class StoredImages:
    """The rows of a split of image files: their bytes are in one temporary file."""

    spool: BinaryIO
    labels: NDArray[np.int16]
    places: NDArray[np.int64]
    """[rows, 2]: where each image's bytes begin, and how many there are."""
    shape: Shape | None
    """That all images have and are stored in as pixels; None: they are stored as they are."""
    coarse_labels: NDArray[np.int16] | None = None
    parts: Sequence[tuple[str, int]] = ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def image_bytes(self) -> int:
        """Of one image as it is stored, on average."""
        whole = self.rows * int(np.prod(self.shape)) if self.shape else int(self.places[:, 1].sum())
        return -(-whole // self.rows)

    def column(self, row_ids: NDArray[np.int64]) -> pa.Array:
        """The images of these rows as they are stored."""
        contents = [self._read(*place) for place in self.places[row_ids].tolist()]
        if self.shape is None:
            return pa.array(contents, pa.binary())
        images = (with_channels(decode(content), self.shape[2], []) for content in contents)
        pixels = [np.asarray(image).tobytes() for image in images]
        return pa.array(pixels, pa.binary(int(np.prod(self.shape))))

    def _read(self, offset: int, size: int) -> bytes:
        self.spool.seek(offset)
        return self.spool.read(size)


@contextmanager
def open_images(
    entry: DatasetEntry, source: Source, how: Reading, skip_bad: bool, progress: Progress
) -> Iterator[Content]:
    """The content of an archive of image files; `how` counts what is left out.

    Raises: ArchiveError.
    """
    layout = IMAGE_LAYOUTS[entry.layout]
    with (
        open_files(source.path, layout.wanted(how.test_split), how.left_out) as files,
        tempfile.TemporaryFile(prefix="cifarray-", buffering=0) as spool,
    ):
        archive = layout.listed(entry, files, how)
        rows = sum(len(listed.names) for listed in archive.splits.values())
        progress.start(f"reading {source.name}", rows, "rows")
        decoder = _Decoder(entry, source.name, how, cast(BinaryIO, spool), skip_bad, progress)
        yield decoder.content(archive)


@dataclass
class _Decoder:
    """Decodes every image once, and keeps the bytes of those that do."""

    entry: DatasetEntry
    name: str
    """Of the archive."""
    how: Reading
    spool: BinaryIO
    skip_bad: bool
    progress: Progress
    sizes: set[tuple[int, int]] = field(default_factory=set)
    gray: bool = True
    """Whether all are."""
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), dtype=np.int64))
    converted: Counter[str] = field(default_factory=Counter)

    def content(self, archive: ImageArchive) -> Content:
        """Read all splits."""
        read = {split: self._split(archive, split) for split in archive.splits}
        kept = {archive.sources[split]: labels for split, (labels, _) in read.items()}
        refuse_losses(self.name, self.how.left_out, archive.classes, kept)
        for split, (labels, _) in read.items():
            self._check_rows(archive, split, labels)
        shape = self._shape()
        coarse = np.array(archive.fine_to_coarse, dtype=np.int16)
        splits = {
            split: StoredImages(
                self.spool, labels, places, shape, coarse[labels] if len(coarse) else None
            )
            for split, (labels, places) in read.items()
        }
        pixels = self.pixels[: shape[2]] if shape else self.pixels
        return Content(
            shape,
            archive.classes,
            splits,
            pixels,
            archive.missing,
            dict(sorted(self.converted.items())),
            archive.coarse_classes,
            archive.fine_to_coarse,
        )

    def _shape(self) -> Shape | None:
        """The shape that all images have, if they are to be stored as pixels."""
        if len(self.sizes) > 1 or self.entry.rows:  # the catalog says that sizes differ
            return None
        ((height, width),) = self.sizes
        channels = 1 if self.gray else 3
        return (height, width, channels) if max(height, width) <= LARGEST_FIXED else None

    def _split(
        self, archive: ImageArchive, split: str
    ) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        labels: list[int] = []
        places: list[tuple[int, int]] = []
        listed, source = archive.splits[split], archive.sources[split]
        for row, content in enumerate(listed.contents()):
            try:
                content = self._checked(split, source, listed, row, content)
            except ValueError as error:
                if not self.skip_bad:
                    raise ArchiveError(
                        f"{split} row_id {row}, {listed.names[row][-120:]}, does not decode "
                        f"({error}); repair or remove it, or skip such images with --skip-bad"
                    ) from error
                self.how.left_out.add(
                    "image",
                    UNREADABLE,
                    split=source,
                    class_name=archive.classes[listed.labels[row]],
                    example=listed.names[row],
                )
                self.progress.remark(f"left out: {listed.names[row]} ({error})")
            else:
                labels.append(int(listed.labels[row]))
                places.append((keep(self.spool, content), len(content)))
            self.progress.advance(1)
        return np.array(labels, dtype=np.int16), np.array(places, dtype=np.int64).reshape(-1, 2)

    def _checked(
        self, split: str, source: str, listed: ListedImages, row: int, content: bytes
    ) -> bytes:
        """The bytes to store of an image that decodes; it is counted. Raises: ValueError."""
        found = decode_file(content)
        image = found.image
        if found.more_frames:
            self.how.left_out.add(
                "frame",
                "frames after the first",
                split=source,
                example=listed.names[row],
            )
        if listed.boxes is not None:
            left, top, width, height = listed.boxes[row]
            right, bottom = (
                min(image.width, round(left + width)),
                min(image.height, round(top + height)),
            )
            if right - left < 1 or bottom - top < 1:
                raise ValueError(f"its box is outside of its {image.width}x{image.height} pixels")
            image = image.crop((round(left), round(top), right, bottom))
            content = _png(image)
        elif found.format not in STORED_FORMATS:
            self.converted[found.format] += 1
            content = _png(image)
        self.sizes.add((image.height, image.width))
        self.gray = self.gray and image.mode == "L"
        if split == "train":
            self.pixels += count_picture(image, 3)
        return content

    def _check_rows(self, archive: ImageArchive, split: str, labels: NDArray[np.int16]) -> None:
        counts = np.bincount(labels, minlength=len(archive.classes))
        (empty,) = np.nonzero(counts == 0)
        if self.entry.rows:
            check_published_rows(self.entry, split, len(labels))
        elif len(empty):
            raise ArchiveError(
                f"class {archive.classes[empty[0]][:80]!r} has no image in {split} that decodes; "
                "add images, or remove the class"
            )


def _png(image: "Image.Image") -> bytes:
    """The image as PNG: without loss, where a JPEG would lose once more."""
    packed = io.BytesIO()
    image.save(packed, format="PNG")
    return packed.getvalue()
