"""Images as inline PNG."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cifarray.errors import WorkError
from cifarray.report.html import png_address


def opened(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1), (20, 30, 3)])
def test_a_picture_holds_the_same_pixels(shape: tuple[int, int, int]):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.asarray(opened(png_address(image))).reshape(shape), image)


def test_a_large_picture_is_scaled_down():
    image = np.zeros((480, 640, 3), np.uint8)
    assert opened(png_address(image)).size == (160, 120)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 2), np.uint8), np.zeros((8, 8, 3))]
)
def test_what_is_no_image_is_refused(image: np.ndarray):
    with pytest.raises(WorkError, match="a picture requires uint8"):
        png_address(image)
