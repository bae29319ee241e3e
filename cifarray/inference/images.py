"""Image files as a network wants them, and in which ways they were changed for it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifarray.data.decode import SPOKEN, read_image_file, resized, upright_image, with_channels
from cifarray.errors import InputError


@dataclass(frozen=True)
class ReadImage:
    """An image file's pixels."""

    path: str
    pixels_HWC: NDArray[np.uint8]
    changes: tuple[str, ...]
    """What was done to the file's pixels, in order."""


def read_image(path: str, shape: tuple[int, int, int]) -> ReadImage:
    """Read an image and fit it to (height, width, channels). Raises: InputError."""
    changes: list[str] = []
    try:
        image = upright_image(read_image_file(Path(path)), changes)
        return _fit(path, image, shape, changes)
    except FileNotFoundError as error:
        raise InputError(f"no image at {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name the image files in it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read as an image ({reason}); give a file of {SPOKEN}"
        ) from error


def _fit(
    path: str, image: Image.Image, shape: tuple[int, int, int], changes: list[str]
) -> ReadImage:
    height, width, channels = shape
    coloured = with_channels(image, channels, changes)
    if coloured.size != (width, height):
        old = f"{coloured.width}x{coloured.height}"
        same_shape = coloured.width * height == coloured.height * width
        note = "" if same_shape else ", which changes its proportions"
        changes.append(f"resized from {old} to {width}x{height}{note}")
        coloured = resized(coloured, height, width)
    pixels = np.asarray(coloured, dtype=np.uint8).reshape(height, width, channels)
    return ReadImage(path, pixels, tuple(changes))
