"""The one way from an image file to pixels: which formats are opened, how large, which way up.

Whatever prepares, audits, trains, evaluates or predicts opens image files here. They come from
strangers, so width and height are held against one limit before any pixel is decoded.
"""

import io
import re
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cifarray.data.formats import FORMATS, readable

if TYPE_CHECKING:
    from PIL import Image

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


def upright_image(
    content: bytes, changes: list[str], formats: tuple[str, ...] = FORMATS
) -> "Image.Image":
    """The decoded first frame of an image file, turned upright; `changes` is told what that took.

    Raises: ValueError, which says in one sentence why it is none.
    """
    from PIL import Image, ImageOps

    try:
        _refuse_too_many_bytes(len(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata; sizes are judged by the limit
            with Image.open(io.BytesIO(content), formats=readable(formats)) as image:
                _refuse_too_many_pixels(image)
                _refuse_too_many_scans(image, content)
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
    except Exception as error:  # broken bytes bring PIL to raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "cannot identify" in reason:
            reason = f"its bytes are no image of {', '.join(formats[:-1])} or {formats[-1]}"
        raise ValueError(reason) from error


def _has_more_frames(image: "Image.Image") -> bool:
    """Whether a second frame follows; `is_animated` counts all, and a file may have millions."""
    try:
        image.seek(1)
    except EOFError:
        return False
    except Exception:  # the frames behind the first are broken, and nobody reads them
        return True
    finally:
        image.seek(0)
    return True


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file. Raises: ValueError for what is too large, OSError."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode):
        _refuse_too_many_bytes(status.st_size)
    elif not stat.S_ISDIR(status.st_mode):
        raise ValueError("it is no plain file")
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


def _refuse_too_many_scans(image: "Image.Image", content: bytes) -> None:
    if image.info.get("progressive") and content.count(b"\xff\xda") > MOST_SCANS:
        raise ValueError(f"it has more than {MOST_SCANS} scans; save it anew")


def _allowed() -> str:
    return f"at most {MOST_PIXELS} are allowed, so scale it down"
