"""What an archive holds, ready to be written: every label checked, every image seen to decode.

An image file keeps its bytes, unless all images are of one small size: then they are stored as
pixels, which are read without decoding.
"""

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.archives.files import keep, open_files
from cifarray.data.archives.images import ImageArchive, ListedImages
from cifarray.data.catalog import DatasetEntry
from cifarray.data.decoding import decode, with_channels
from cifarray.data.layouts import IMAGE_LAYOUTS
from cifarray.data.parquet import SplitRows
from cifarray.data.progress import Progress
from cifarray.data.source import Source
from cifarray.data.statistics import count_picture
from cifarray.errors import ArchiveError

LARGEST_FIXED = 256
"""Height and width up to which images of one size are stored as pixels."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Content:
    """A dataset's splits, and what its manifest says of them."""

    shape: Shape | None
    """None where images are stored encoded."""
    classes: tuple[str, ...]
    splits: Mapping[str, SplitRows]
    pixels: NDArray[np.int64]
    """[channels, 256]: how often each value occurs in train."""
    missing: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class StoredImages:
    """The rows of a split of image files: their bytes lie in one temporary file."""

    spool: BinaryIO
    labels: NDArray[np.int16]
    places: NDArray[np.int64]
    """[rows, 2]: where each image's bytes begin, and how many there are."""
    shape: Shape | None
    """That all images have and are stored in as pixels; None: they are stored as they are."""
    coarse_labels: None = None
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
    entry: DatasetEntry, source: Source, crop: bool, skip_bad: bool, progress: Progress
) -> Iterator[Content]:
    """The content of an archive of image files. Raises: ArchiveError."""
    layout = IMAGE_LAYOUTS[entry.layout]
    with (
        open_files(source.path, layout.wanted) as files,
        tempfile.TemporaryFile(prefix="cifarray-", buffering=0) as spool,
    ):
        archive = layout.listed(entry, files, crop)
        for remark in archive.remarks:
            progress.remark(remark)
        rows = sum(len(listed.names) for listed in archive.splits.values())
        progress.start(f"reading {source.name}", rows, "rows")
        yield _Reading(entry, cast(BinaryIO, spool), skip_bad, progress).content(archive)


@dataclass
class _Reading:
    """Decodes every image once, and keeps the bytes of those that do."""

    entry: DatasetEntry
    spool: BinaryIO
    skip_bad: bool
    progress: Progress
    sizes: set[tuple[int, int]] = field(default_factory=set)
    gray: bool = True
    """Whether all are."""
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), dtype=np.int64))
    skipped: int = 0

    def content(self, archive: ImageArchive) -> Content:
        """Read all splits."""
        read = {split: self._split(split, listed) for split, listed in archive.splits.items()}
        for split, (labels, _) in read.items():
            self._check_rows(archive, split, labels)
        shape = self._shape()
        splits = {
            split: StoredImages(self.spool, labels, places, shape)
            for split, (labels, places) in read.items()
        }
        pixels = self.pixels[: shape[2]] if shape else self.pixels
        return Content(
            shape, archive.classes, splits, pixels, archive.missing, skipped=self.skipped
        )

    def _shape(self) -> Shape | None:
        """The shape that all images have, if they are to be stored as pixels."""
        if len(self.sizes) > 1 or self.entry.rows:  # the catalog says that sizes differ
            return None
        ((height, width),) = self.sizes
        channels = 1 if self.gray else 3
        return (height, width, channels) if max(height, width) <= LARGEST_FIXED else None

    def _split(
        self, split: str, listed: ListedImages
    ) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        labels: list[int] = []
        places: list[tuple[int, int]] = []
        for row, content in enumerate(listed.contents()):
            try:
                content = self._checked(split, listed, row, content)
            except ValueError as error:
                if not self.skip_bad:
                    raise ArchiveError(
                        f"{split} row_id {row}, {listed.names[row][-120:]}, does not decode "
                        f"({error}); mend it or take it away, or leave such images out with "
                        "--skip-bad"
                    ) from error
                self.skipped += 1
                self.progress.remark(f"left out: {listed.names[row]} ({error})")
            else:
                labels.append(int(listed.labels[row]))
                places.append((keep(self.spool, content), len(content)))
            self.progress.advance(1)
        return np.array(labels, dtype=np.int16), np.array(places, dtype=np.int64).reshape(-1, 2)

    def _checked(self, split: str, listed: ListedImages, row: int, content: bytes) -> bytes:
        """The bytes to store of an image that decodes; it is counted. Raises: ValueError."""
        image = decode(content)
        if listed.boxes is not None:
            left, top, width, height = listed.boxes[row]
            right, bottom = (
                min(image.width, round(left + width)),
                min(image.height, round(top + height)),
            )
            if right - left < 1 or bottom - top < 1:
                raise ValueError(f"its box lies outside of its {image.width}x{image.height} pixels")
            image = image.crop((round(left), round(top), right, bottom))
            packed = io.BytesIO()
            image.save(packed, format="PNG")  # without loss, where a JPEG would lose once more
            content = packed.getvalue()
        self.sizes.add((image.height, image.width))
        self.gray = self.gray and image.mode == "L"
        if split == "train":
            self.pixels += count_picture(image, 3)
        return content

    def _check_rows(self, archive: ImageArchive, split: str, labels: NDArray[np.int16]) -> None:
        counts = np.bincount(labels, minlength=len(archive.classes))
        (empty,) = np.nonzero(counts == 0)
        if self.entry.rows:
            if not 1 <= len(labels) <= self.entry.rows[split]:
                raise ArchiveError(
                    f"{self.entry.name} {split} holds {len(labels)} rows; 1 to "
                    f"{self.entry.rows[split]} (as published) are allowed"
                )
        elif len(empty):
            raise ArchiveError(
                f"class {archive.classes[empty[0]][:80]!r} has no image left in {split} that "
                "decodes; add some, or take the class away"
            )
