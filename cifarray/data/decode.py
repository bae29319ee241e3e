"""Decodes image files to pixels: formats, limits, orientation, gray or RGB, size.

All code that reads image files opens them here. They come from strangers, so width and height are
checked against one limit before any pixel is decoded. PIL knows further formats than these, such as
EPS, that run other programs.
"""

import io
import re
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES_OF: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
FORMATS = tuple(SUFFIXES_OF)
"""Formats allowed in an archive; of an image with several frames, the first is read."""
STORED_FORMATS = ("JPEG", "PNG")
"""Formats stored in a dataset, so that all readers decode the same; the others become PNG."""
SUFFIXES = tuple(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes)
FORMATS_IN_WORDS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or PPM"
MOST_PIXELS = 50_000_000
"""Of one image, width x height, as a telephone's camera takes. As RGB they take 150 MB, and
decoding holds up to five times as much (a WebP)."""
MOST_BYTES = 160_000_000
"""Of one image file: the pixels allowed, as RGB and hardly compressed."""
MOST_SCANS = 100
"""Of a progressive JPEG; each goes over every pixel, and a few bytes make one. Common are ten."""
TILE_WIDTH, TILE_HEIGHT, STRIP_ROWS, ORIENTATION = 322, 323, 278, 274
"""Tags of TIFF and EXIF."""
SEVERAL_FRAMES = "first of several frames"
MODE_NAMES = {"P": "palette", "L": "gray"}
STRIP_PIXELS = 1 << 20
"""Rows at a time in which transparency is laid on white, which bounds the memory."""


@cache
def readable(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the installed Pillow has a reader for: older ones lack AVIF's."""
    from PIL import Image

    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def upright_image(
    content: bytes, changes: list[str], formats: tuple[str, ...] = FORMATS
) -> "Image.Image":
    """The decoded first frame of an image file, upright; `changes` receives what was changed."""
    from PIL import Image, ImageOps

    try:
        _refuse_too_many_bytes(len(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata; sizes are judged by the limit
            with Image.open(io.BytesIO(content), formats=readable(formats)) as image:
                _refuse_too_many_pixels(image)
                if image.info.get("progressive") and content.count(b"\xff\xda") > MOST_SCANS:
                    raise ValueError(f"it has more than {MOST_SCANS} scans; save it again")
                if image.format not in ("JPEG", "MPO") and _has_more_frames(image):
                    changes.append(SEVERAL_FRAMES)
                image.load()
            if (image.getexif().get(ORIENTATION) or 1) != 1:
                changes.append("turned upright")
                ImageOps.exif_transpose(image, in_place=True)
        return image
    except Image.DecompressionBombError as error:  # PIL's own limit comes before ours is asked
        claimed = re.search(r"\d+", str(error))
        raise ValueError(
            f"it has {claimed[0] if claimed else 'too many'} pixels; {_allowed()}"
        ) from error
    except Exception as error:  # PIL may raise almost any error for broken bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "cannot identify" in reason:
            reason = f"its bytes are not an image of {', '.join(formats[:-1])} or {formats[-1]}"
        raise ValueError(reason) from error


def _has_more_frames(image: "Image.Image") -> bool:
    """Whether a second frame follows; `is_animated` counts all, and a file may have millions."""
    try:
        image.seek(1)
    except EOFError:
        return False
    except Exception:  # the later frames are broken, but only the first is read
        return True
    finally:
        image.seek(0)
    return True


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file. Raises: ValueError if it is too large, OSError."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode):
        _refuse_too_many_bytes(status.st_size)
    elif not stat.S_ISDIR(status.st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _refuse_too_many_bytes(size_bytes: int) -> None:
    if size_bytes > MOST_BYTES:
        raise ValueError(f"it has {size_bytes} bytes; at most {MOST_BYTES} are allowed")


def _refuse_too_many_pixels(image: "Image.Image") -> None:
    """Judge the header's size, and that of the tiles in which a TIFF is unpacked."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"it has {image.width}x{image.height} pixels; {_allowed()}")
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH, image.width), tags.get(TILE_HEIGHT, 1)
    height = max(height, min(tags.get(STRIP_ROWS, 1), image.height))
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has tiles of {width}x{height} pixels; {_allowed()}")


def _allowed() -> str:
    return f"at most {MOST_PIXELS} are allowed, so scale it down"


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
    # PIL calls a camera's JPEG with an appended preview an MPO.
    found = "JPEG" if upright.format == "MPO" else upright.format or ""
    gray = upright.mode in ("1", "L", "LA") or upright.mode.startswith("I;16")
    image = with_channels(upright, 1 if gray else 3, [])
    return Decoded(image, found, SEVERAL_FRAMES in changes)


def with_channels(image: "Image.Image", channels: int, changes: list[str]) -> "Image.Image":
    """The image as gray (1 channel) or RGB (3); `changes` is told what that took.

    Raises: ValueError if it can be neither.
    """
    from PIL import Image

    wanted = {1: "L", 3: "RGB"}.get(channels)
    if wanted is None:
        raise ValueError(
            f"the network takes {channels} channels, but images are gray (1) or RGB (3)"
        )
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
        mode = MODE_NAMES.get(image.mode, image.mode)
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

    `what` names the source of the rows. Raises: DatasetError for an image that does not decode.
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
