"""Inspect a prepared dataset: its rows, problems to know before training, a picture."""

import hashlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cifarray.data.decode import decode
from cifarray.data.left_out import as_json
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.parquet import image_array, opened, read_columns, read_images
from cifarray.data.statistics import (
    count_picture,
    count_pixels,
    describe_pixels,
    moments,
)
from cifarray.errors import DatasetError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix

LISTED_GROUPS = 20
"""Groups of equal images that are named one by one; all of them are counted."""

Copies = dict[bytes, list[tuple[str, int, int]]]
"""Per image, by the digest of its bytes: split, row_id and label of each row that holds it."""
CELL = 56
"""About the side of an image in the picture; its pixels become squares of one size."""
PHOTO = 96
"""The side of an encoded image in the picture."""
GAP = 4
MARGIN = 16
FONT_SIZE = 15
CLASSES_PER_COLUMN = 25
WIDE, NARROW = 10, 4
"""Images a class: where all classes stand below each other, and where they take several columns."""
INK, PAPER = (32, 32, 32), (255, 255, 255)


class SplitAudit:
    """What is counted while the rows of one split pass by."""

    def __init__(self, manifest: Manifest) -> None:
        self.classes = len(manifest.classes)
        self.rows = 0
        self.missing = 0
        self.unread = 0
        """Rows of files and row groups that are damaged."""
        self.undecodable_images = 0
        """Of the rows that were read."""
        self.unknown_labels = 0
        self.incomplete = 0
        self.nulls = Counter[str]()
        self.class_counts = np.zeros(self.classes, dtype=np.int64)
        self.shape, self.channels = manifest.shape, manifest.channels
        self.pixels = np.zeros((self.channels, 256), dtype=np.int64)
        self.heights: Counter[int] = Counter()
        self.widths: Counter[int] = Counter()

    def add(self, labels: NDArray[np.int16], images: pa.ChunkedArray) -> None:
        """Count these rows."""
        known = labels[(labels >= 0) & (labels < self.classes)]
        self.rows += len(labels)
        self.unknown_labels += len(labels) - len(known)
        self.class_counts += np.bincount(known, minlength=self.classes)
        if self.shape is None:
            for content in images:
                self._add_encoded(content.as_py())
            return
        self.pixels += count_pixels(image_array(images, self.shape))
        self.heights[self.shape[0]] += len(labels)
        self.widths[self.shape[1]] += len(labels)

    def _add_encoded(self, content: bytes) -> None:
        try:
            image = decode(content)
        except ValueError:
            self.undecodable_images += 1
            return
        self.pixels += count_picture(image, self.channels)
        self.heights[image.height] += 1
        self.widths[image.width] += 1

    def leave_out(self, rows: int, nulls: Mapping[str, int]) -> None:
        """Count rows that lack an image or a label, and what they lack."""
        self.incomplete += rows
        self.nulls.update(nulls)

    def figures(self) -> dict[str, Any]:
        """As JSON; channel figures are 0 to 1, min and max 0 to 255 as stored."""
        mean, std = moments(self.pixels)
        (present,) = np.nonzero(self.pixels.sum(axis=0))
        return {
            "rows": self.rows + self.missing + self.unread + self.incomplete,
            "missing_images": self.missing,
            "undecodable_images": self.unread + self.undecodable_images,
            "unknown_labels": self.unknown_labels,
            "null_images": self.nulls["image"],
            "null_labels": self.nulls["label"],
            "class_counts": self.class_counts.tolist(),
            "channel_mean": list(mean),
            "channel_std": list(std),
            "pixels": describe_pixels(self.pixels),
            "min": int(present[0]) if len(present) else None,
            "max": int(present[-1]) if len(present) else None,
            "heights": _range(self.heights),
            "widths": _range(self.widths),
        }


def _range(counted: Counter[int]) -> list[int] | None:
    """The least and the greatest of what was counted."""
    return [min(counted), max(counted)] if counted else None


def inspect_dataset(store: Store, name: str, digest: str | None = None) -> dict[str, Any]:
    """What the rows of a dataset hold, read one row group at a time, as a value for JSON.

    A file that is not there counts its rows as missing images; a file or a row group that cannot be
    read counts them as undecodable.

    Raises: DatasetError if the dataset is missing.
    """
    manifest = load_manifest(store, name, digest)
    copies: Copies = defaultdict(list)
    splits = {
        split: _audit_split(store, manifest, split, copies).figures() for split in manifest.splits
    }
    return {
        "name": manifest.name,
        "title": manifest.title,
        "digest": manifest.digest,
        "store": store.uri,
        "folder": dataset_prefix(manifest.name, manifest.digest),
        "source": manifest.source.model_dump(mode="json"),
        "left_out": as_json(manifest.left_out),
        "citation": manifest.citation,
        "shape": list(manifest.shape) if manifest.shape else None,
        "storage": manifest.storage,
        "classes": list(manifest.classes),
        "coarse_classes": list(manifest.coarse_classes),
        "splits": splits,
        "duplicates": _duplicates(manifest, copies),
    }


def _audit_split(store: Store, manifest: Manifest, split: str, copies: Copies) -> SplitAudit:
    audit = SplitAudit(manifest)
    for file in manifest.splits[split].files:
        if not store.exists(f"{dataset_prefix(manifest.name, manifest.digest)}/{file.key}"):
            audit.missing += file.rows
            continue
        try:
            with opened(store, manifest, file, checked=True) as parquet:
                for group, rows in enumerate(file.row_groups):
                    table = _decoded(parquet, group)
                    if table is None:
                        audit.unread += rows
                    else:
                        _audit_table(audit, split, table, copies)
        except DatasetError:  # no Parquet file, or one of another dataset
            audit.unread += file.rows
    return audit


def _decoded(parquet: pq.ParquetFile, group: int) -> pa.Table | None:
    """A row group, or None if its bytes are damaged."""
    try:
        return parquet.read_row_group(group)
    except (OSError, pa.ArrowException):
        return None


def _audit_table(audit: SplitAudit, split: str, table: pa.Table, copies: Copies) -> None:
    rows = len(table)
    table, nulls = without_nulls(table)
    audit.leave_out(rows - len(table), nulls)
    labels = table["label"].to_numpy()
    audit.add(labels, table["image"])
    row_ids = table["row_id"].to_pylist()
    for row_id, label, image in zip(row_ids, labels.tolist(), table["image"], strict=True):
        digest = hashlib.blake2b(image.as_buffer(), digest_size=16).digest()
        copies[digest].append((split, row_id, label))


def without_nulls(table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The rows that have both an image and a label, and how often either is missing."""
    missing = {name: table[name].null_count for name in ("image", "label")}
    if any(missing.values()):
        there = pc.and_(pc.is_valid(table["image"]), pc.is_valid(table["label"]))
        table = table.filter(there)
    return table, missing


def _duplicates(manifest: Manifest, copies: Copies) -> dict[str, Any]:
    """Exact copies: rows beyond the first within a split, test rows whose image is in train too."""
    groups = [sorted(rows) for rows in copies.values() if len(rows) > 1]
    groups.sort(key=lambda rows: (-len(rows), rows))
    within = dict.fromkeys(manifest.splits, 0)
    across = 0
    for rows in groups:
        counts = {split: sum(row[0] == split for row in rows) for split in within}
        for split, count in counts.items():
            within[split] += max(count - 1, 0)
        if counts["train"] and counts["test"]:
            across += counts["test"]
    names = dict(enumerate(manifest.classes))
    listed = [
        [
            {"split": split, "row_id": row_id, "label": names.get(label, str(label))}
            for split, row_id, label in rows
        ]
        for rows in groups[:LISTED_GROUPS]
    ]
    return {
        "within": within,
        "test_rows_also_in_train": across,
        "groups": len(groups),
        "groups_with_different_labels": sum(len({row[2] for row in rows}) > 1 for rows in groups),
        "listed_groups": listed,
    }


def sample_grid(store: Store, name: str, digest: str | None = None) -> bytes:
    """A PNG with the first images of each class of train, in the archive's order.

    Raises: DatasetError if the dataset is missing.
    """
    manifest = load_manifest(store, name, digest)
    present = sum(count > 0 for count in manifest.splits["train"].class_counts)
    columns = math.ceil(present / CLASSES_PER_COLUMN)
    row_ids = _first_of_each_class(store, manifest, WIDE if columns == 1 else NARROW)
    flat = [row_id for ids in row_ids.values() for row_id in ids]
    images = read_images(store, manifest, "train", flat, PHOTO)
    pictures = iter([_picture(image) for image in images])
    return _draw(
        manifest, {name: [next(pictures) for _ in ids] for name, ids in row_ids.items()}, columns
    )


def _first_of_each_class(store: Store, manifest: Manifest, count: int) -> dict[str, list[int]]:
    """By name; an archive that is a part may hold none of some classes."""
    table = read_columns(store, manifest, "train", ["row_id", "label"])
    row_ids, labels = table["row_id"].to_numpy(), table["label"].to_numpy()
    return {
        name: np.sort(row_ids[labels == label])[:count].tolist()
        for label, name in enumerate(manifest.classes)
        if np.any(labels == label)
    }


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    pixels = image[..., 0] if image.shape[2] == 1 else image
    scale = max(1, round(CELL / max(image.shape[:2])))
    return Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1)).convert("RGB")


def _draw(manifest: Manifest, pictures: dict[str, list[Image.Image]], columns: int) -> bytes:
    font: Any = ImageFont.load_default(FONT_SIZE)
    width, height = (side + GAP for side in next(iter(pictures.values()))[0].size)
    name_width = math.ceil(max(map(font.getlength, pictures))) + 3 * GAP
    column_width = name_width + max(map(len, pictures.values())) * width + MARGIN
    per_column = math.ceil(len(pictures) / columns)
    top = 2 * MARGIN + FONT_SIZE
    size = (MARGIN + columns * column_width, top + per_column * height + MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    rows = manifest.splits["train"].rows
    pen.text((MARGIN, MARGIN), f"{manifest.title}: {rows:,} training rows", INK, font)
    for index, (name, row) in enumerate(pictures.items()):
        left = MARGIN + index // per_column * column_width
        upper = top + index % per_column * height
        pen.text((left, upper + height // 2), name, INK, font, anchor="lm")
        for place, picture in enumerate(row):
            canvas.paste(picture, (left + name_width + place * width, upper))
    content = io.BytesIO()
    canvas.save(content, format="PNG")
    return content.getvalue()
