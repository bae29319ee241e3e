"""Draws predictions: each image as the network sees it, next to bars of its likeliest classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarray.errors import InputError
from cifarray.report import formats
from cifarray.report.svg import ON_PAPER, check_file, draw_file

WIDTH, ROW_HEIGHT = 640, 150
MOST_ROWS = 32
LONGEST_NAME = 24


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """An image and the classes that a network predicts for it."""

    title: str
    pixels_HWC: NDArray[np.uint8]
    """1 or 3 channels."""
    classes: Sequence[tuple[str, float]]
    """(class, probability), most probable first."""


def check_drawing(path: Path, rows: int) -> None:
    """Raise InputError for a picture that cannot be drawn, before any work is done for it."""
    check_file(path)
    if rows > MOST_ROWS:
        raise InputError(
            f"--picture takes at most {MOST_ROWS} images, not {rows}; give fewer, or leave it out"
        )


def draw_predictions(path: Path, rows: Sequence[PredictedImage]) -> None:
    """Write a picture with a row per image, as SVG or PNG by its name. Raises: InputError."""
    check_drawing(path, len(rows))

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("constrained")
        grid = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(1, 2.6))
        for (left, right), row in zip(grid, rows, strict=True):
            _image(left, row)
            _bars(right, row)

    draw_file(path, (WIDTH, ROW_HEIGHT * len(rows)), paint)


def _image(axes: Axes, row: PredictedImage) -> None:
    is_gray = row.pixels_HWC.shape[2] == 1
    options: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if is_gray else {}
    pixels = row.pixels_HWC[:, :, 0] if is_gray else row.pixels_HWC
    axes.imshow(pixels, interpolation="nearest", **options)
    axes.set_axis_off()
    axes.set_title(
        formats.shortened(row.title, LONGEST_NAME), color=ON_PAPER["ink"], fontsize=10, loc="center"
    )


def _bars(axes: Axes, row: PredictedImage) -> None:
    names = [formats.shortened(name, LONGEST_NAME) for name, _ in row.classes]
    shares = [probability for _, probability in row.classes]
    places = range(len(names))
    colors = [ON_PAPER["accent" if place == 0 else "quiet"] for place in places]
    bars = axes.barh(places, shares, color=colors)
    axes.bar_label(bars, [formats.percent(share, 1) for share in shares], padding=4, fontsize=10)
    axes.set_yticks(places, names, color=ON_PAPER["ink"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18)  # leaves space for the label of a bar of 100 %
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
