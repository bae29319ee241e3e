"""The describe() table of a dataset's pixels, exact from the counts of their 256 values."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

QUARTILES = {"25%": 0.25, "50%": 0.5, "75%": 0.75}
FIGURES = ("count", "mean", "std", "min", *QUARTILES, "max")
"""In the order and under the names of pandas' DataFrame.describe()."""


def describe_pixels(counts: NDArray[np.int64]) -> list[dict[str, float | None]]:
    """What pandas' describe() says of each channel's values, 0 to 255 as stored.

    `counts` is [channels, 256]. As there, `std` divides by count - 1, quantiles lie between two
    values where they have to, and a figure that does not exist (NaN there) is None.
    """
    return [_describe(channel) for channel in counts]


def without_nulls(table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The rows that have both an image and a label, and how often either is missing."""
    missing = {name: table[name].null_count for name in ("image", "label")}
    if any(missing.values()):
        there = pc.and_(pc.is_valid(table["image"]), pc.is_valid(table["label"]))
        table = table.filter(there)
    return table, missing


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
