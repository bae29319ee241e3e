"""A picture of a dataset: some training images of each class, with its name."""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.rows import read_columns, read_images
from cifarray.store import Store

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


def sample_grid(store: Store, name: str, digest: str | None = None) -> bytes:
    """A PNG with the first images of each class of train, in the archive's order.

    Raises: DatasetError where the dataset is missing.
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
