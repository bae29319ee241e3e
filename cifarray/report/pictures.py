"""Images as inline PNG, pixel for pixel; the page scales them up."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifarray.errors import WorkError

LARGEST_SIDE = 160
"""Pixels; larger images are scaled down so that a page stays small."""


def png_address(image_HWC: NDArray[np.uint8]) -> str:
    """Return a data: address of the image, of 1 or 3 channels."""
    if image_HWC.ndim != 3 or image_HWC.shape[2] not in (1, 3) or image_HWC.dtype != np.uint8:
        raise WorkError(
            "a picture wants uint8 of height, width and 1 or 3 channels,"
            f" not {image_HWC.dtype} of shape {image_HWC.shape}"
        )
    pixels = image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
