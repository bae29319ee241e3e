"""Figures over a dataset's pixels, from exact counts of their 256 values."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CHUNK_ROWS = 4096

Moments = tuple[tuple[float, ...], tuple[float, ...]]


def count_pixels(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each channel of [rows, height, width, channels] has each value: [channels, 256]."""
    counts = np.zeros((images.shape[3], 256), dtype=np.int64)
    for first in range(0, len(images), CHUNK_ROWS):
        chunk = images[first : first + CHUNK_ROWS]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    return counts


def count_picture(image: "Image.Image", channels: int) -> NDArray[np.int64]:
    """The same of one image of mode L or RGB, gray as so many equal channels."""
    counts = np.array(image.histogram(), dtype=np.int64).reshape(-1, 256)
    return np.broadcast_to(counts, (channels, 256))


def moments(counts: NDArray[np.int64]) -> Moments:
    """Mean and standard deviation per channel, pixels scaled to 0 to 1; zeros for no pixels."""
    values = np.arange(256, dtype=np.float64) / 255
    total = np.maximum(counts.sum(axis=1), 1)
    mean = counts @ values / total
    spread = ((values - mean[:, np.newaxis]) ** 2 * counts).sum(axis=1) / total
    return tuple(mean.tolist()), tuple(np.sqrt(spread).tolist())
