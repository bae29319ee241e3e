"""From the bytes of an image file to pixels: upright, gray or RGB, squares of a size.

Whatever prepares, trains, evaluates or predicts comes to an image's pixels here, and so to the same
ones. Such bytes come from strangers: formats and sizes are limited.
"""

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.formats import FORMATS, STORED_FORMATS, readable
from cifarray.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 1 << 26
"""Of one image: 201 MB as RGB."""
SPOKEN_MODES = {"P": "palette", "L": "gray"}


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
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata
            with Image.open(io.BytesIO(content), formats=readable(formats)) as image:
                _refuse_too_many_pixels(image)
                image.load()
                upright = ImageOps.exif_transpose(image)
                # PIL calls a JPEG of a camera, with a preview behind it, an MPO
                found = "JPEG" if image.format == "MPO" else image.format or ""
                more = found != "JPEG" and _has_more_frames(image)
        gray = upright.mode in ("1", "L", "LA") or upright.mode.startswith("I;16")
        return Decoded(with_channels(upright, 1 if gray else 3, []), found, more)
    except Exception as error:  # broken bytes bring PIL to raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "cannot identify" in reason:
            reason = f"its bytes are no image of {' or '.join(formats)}"
        raise ValueError(reason) from error


def _has_more_frames(image: "Image.Image") -> bool:
    try:
        image.seek(1)  # `is_animated` counts all frames, of which a file may have millions
    except EOFError:
        return False
    except Exception:  # the frames behind the first are broken, and nobody reads them
        return True
    return True


def _refuse_too_many_pixels(image: "Image.Image") -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(
            f"it has {image.width}x{image.height} pixels; at most {MOST_PIXELS} are allowed"
        )


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
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range")
    if image.has_transparency_data:
        changes.append("transparency laid on white")
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        if wanted == "L":
            changes.append("RGB to gray")
    elif wanted == "RGB" and image.mode in ("L", "1"):
        changes.append("gray to RGB")
    elif image.mode not in (wanted, "1"):
        mode = SPOKEN_MODES.get(image.mode, image.mode)
        changes.append(f"{mode} to {'gray' if wanted == 'L' else 'RGB'}")
    return image if image.mode == wanted else image.convert(wanted)


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
