"""From the bytes of an image file to the pixels that a network sees: gray or RGB, of a size."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.formats import FORMATS, STORED_FORMATS
from cifarray.data.image_files import SEVERAL_FRAMES, upright_image
from cifarray.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

SPOKEN_MODES = {"P": "palette", "L": "gray"}
STRIP_PIXELS = 1 << 20
"""In which transparency is laid on white, so that a large image is not held four times over."""


@dataclass(frozen=True)
class Decoded:
    """What the bytes of an image file are."""

    image: "Image.Image"
    """Upright, of mode L or RGB; of several frames the first."""
    format: str
    """One of FORMATS."""
    more_frames: bool


def decode(content: bytes) -> "Image.Image":
    """An upright image of mode L or RGB from the bytes that a dataset stores.

    Raises: ValueError, which says why it is none.
    """
    return decode_file(content, STORED_FORMATS).image


def decode_file(content: bytes, formats: tuple[str, ...] = FORMATS) -> Decoded:
    """The image in a file of one of these formats. Raises: ValueError, which says why not."""
    changes: list[str] = []
    upright = upright_image(content, changes, formats)
    # PIL calls a JPEG of a camera, with a preview behind it, an MPO.
    found = "JPEG" if upright.format == "MPO" else upright.format or ""
    gray = upright.mode in ("1", "L", "LA") or upright.mode.startswith("I;16")
    image = with_channels(upright, 1 if gray else 3, [])
    return Decoded(image, found, SEVERAL_FRAMES in changes)


def with_channels(image: "Image.Image", channels: int, changes: list[str]) -> "Image.Image":
    """The image as gray (1 channel) or RGB (3); `changes` is told what that took.

    Raises: ValueError for what can be neither.
    """
    from PIL import Image

    wanted = {1: "L", 3: "RGB"}.get(channels)
    if wanted is None:
        raise ValueError(f"the network takes {channels} channels, neither gray nor RGB")
    if image.mode.startswith("I;16"):
        changes.append("16 bits to 8")
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range")
    if image.has_transparency_data:
        changes.append("transparency laid on white")
        image = _on_white(image)
        if wanted == "L":
            changes.append("RGB to gray")
    elif wanted == "RGB" and image.mode in ("L", "1"):
        changes.append("gray to RGB")
    elif image.mode not in (wanted, "1"):
        mode = SPOKEN_MODES.get(image.mode, image.mode)
        changes.append(f"{mode} to {'gray' if wanted == 'L' else 'RGB'}")
    return image if image.mode == wanted else image.convert(wanted)


def _on_white(image: "Image.Image") -> "Image.Image":
    """A transparent image's RGB pixels before a white ground."""
    from PIL import Image

    laid = Image.new("RGB", image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        laid.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return laid


def resized(image: "Image.Image", height: int, width: int) -> "Image.Image":
    """The image at this size, bilinearly and without aliasing; proportions are not kept."""
    from PIL import Image

    return image.resize((width, height), Image.Resampling.BILINEAR)


def square(content: bytes, side: int) -> NDArray[np.uint8]:
    """An encoded image as `side` x `side` RGB pixels. Raises: ValueError."""
    return np.asarray(resized(with_channels(decode(content), 3, []), side, side))


def with_squares(table: pa.Table, side: int, what: str) -> pa.Table:
    """The table with its encoded images as `side` x `side` RGB pixels, of one size.

    `what` is whose rows they are. Raises: DatasetError for an image that does not decode.
    """
    chunks = [_squares(batch["image"], batch["row_id"], side, what) for batch in table.to_batches()]
    kind = pa.binary(side * side * 3)
    images = pa.chunked_array(chunks, type=kind)
    field = pa.field("image", kind, nullable=False)
    return table.set_column(table.schema.get_field_index("image"), field, images)


def _squares(images: pa.Array, row_ids: pa.Array, side: int, what: str) -> pa.Array:
    pixels = np.empty((len(images), side, side, 3), dtype=np.uint8)
    for place, (content, row_id) in enumerate(zip(images, row_ids, strict=True)):
        try:
            pixels[place] = square(content.as_py(), side)
        except ValueError as error:
            raise DatasetError(
                f"the image of row_id {row_id} of {what} does not decode ({error}); run "
                "`cifarray data verify` on it"
            ) from error
    kind = pa.binary(side * side * 3)
    return pa.Array.from_buffers(kind, len(images), [None, pa.py_buffer(pixels)])
