"""Image files as a network wants them, and in which ways they were changed for it."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cifarray.data.decoding import resized, with_channels
from cifarray.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is opened; PIL knows formats, such as EPS, that run other programs."""


@dataclass(frozen=True)
class ReadImage:
    """An image file's pixels."""

    path: str
    pixels_HWC: NDArray[np.uint8]
    changes: tuple[str, ...]
    """What was done to the file's pixels, in order."""


def read_image(path: str, shape: tuple[int, int, int]) -> ReadImage:
    """Read an image and fit it to (height, width, channels). Raises: InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata; sizes are judged by the limit
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return _fit(path, image, shape)
    except FileNotFoundError as error:
        raise InputError(f"no image at {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name the image files in it") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} claims too many pixels to be read: {error}") from error
    except Exception as error:  # broken bytes bring PIL to raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path} cannot be read as an image ({reason}); {', '.join(FORMATS)} can"
        ) from error


def _fit(path: str, image: Image.Image, shape: tuple[int, int, int]) -> ReadImage:
    height, width, channels = shape
    changes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        changes.append(f"first of {frames} frames")
    upright = ImageOps.exif_transpose(image)
    if (image.getexif().get(0x0112) or 1) != 1:
        changes.append("turned upright")
    coloured = with_channels(upright, channels, changes)
    if coloured.size != (width, height):
        old = f"{coloured.width}x{coloured.height}"
        same_shape = coloured.width * height == coloured.height * width
        note = "" if same_shape else ", which changes its proportions"
        changes.append(f"resized from {old} to {width}x{height}{note}")
        coloured = resized(coloured, height, width)
    pixels = np.asarray(coloured, dtype=np.uint8).reshape(height, width, channels)
    return ReadImage(path, pixels, tuple(changes))
