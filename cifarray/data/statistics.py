"""Figures over a dataset's pixels, exact from the counts of their 256 values."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CHUNK_ROWS = 4096

Moments = tuple[tuple[float, ...], tuple[float, ...]]
QUARTILES = {"25%": 0.25, "50%": 0.5, "75%": 0.75}
FIGURES = ("count", "mean", "std", "min", *QUARTILES, "max")
"""In the order and under the names of pandas' DataFrame.describe()."""


def count_pixels(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each channel of [rows, height, width, channels] has each value: [channels, 256]."""
    counts = np.zeros((images.shape[3], 256), dtype=np.int64)
    for first in range(0, len(images), CHUNK_ROWS):
        chunk = images[first : first + CHUNK_ROWS]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    return counts


def count_picture(image: "Image.Image", channels: int) -> NDArray[np.int64]:
    """The same of one image of mode L or RGB, gray as that many equal channels."""
    counts = np.array(image.histogram(), dtype=np.int64).reshape(-1, 256)
    return np.broadcast_to(counts, (channels, 256))


def moments(counts: NDArray[np.int64]) -> Moments:
    """Mean and standard deviation per channel, pixels scaled to 0 to 1; zeros for no pixels."""
    values = np.arange(256, dtype=np.float64) / 255
    total = np.maximum(counts.sum(axis=1), 1)
    mean = counts @ values / total
    spread = ((values - mean[:, np.newaxis]) ** 2 * counts).sum(axis=1) / total
    return tuple(mean.tolist()), tuple(np.sqrt(spread).tolist())


def describe_pixels(counts: NDArray[np.int64]) -> list[dict[str, float | None]]:
    """What pandas' describe() says of each channel's values, 0 to 255 as stored.

    `counts` is [channels, 256]. As there, `std` divides by count - 1, quantiles lie between two
    values where they have to, and a figure that does not exist (NaN there) is None.
    """
    return [_describe(channel) for channel in counts]


def _describe(counts: NDArray[np.int64]) -> dict[str, float | None]:
    total = int(counts.sum())
    if not total:
        return {"count": 0, **dict.fromkeys(FIGURES[1:])}
    values = np.arange(len(counts), dtype=np.float64)
    present = np.flatnonzero(counts)
    mean = float(counts @ values) / total
    squares = float(counts @ (values - mean) ** 2)
    return {
        "count": total,
        "mean": mean,
        "std": math.sqrt(squares / (total - 1)) if total > 1 else None,
        "min": float(present[0]),
        **{name: _quantile(counts, total, share) for name, share in QUARTILES.items()},
        "max": float(present[-1]),
    }


def _quantile(counts: NDArray[np.int64], total: int, share: float) -> float:
    """The value at this place of the sorted ones, between two of them by linear interpolation."""
    below, rest = divmod(share * (total - 1), 1.0)
    ends = counts.cumsum()
    low, high = (
        int(np.searchsorted(ends, min(place, total - 1), side="right"))
        for place in (below, below + 1)
    )
    return low + (high - low) * rest


def rows_of_table(splits: dict[str, Any]) -> list[list[Any]]:
    """One row per split and channel for printing: names, then the figures."""
    return [
        [split, channel, *(described[name] for name in FIGURES)]
        for split, content in splits.items()
        for channel, described in enumerate(content["pixels"])
    ]
