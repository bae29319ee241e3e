"""The confusion matrix: its counts, the worst confusions, and its picture as inline SVG."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from cifarray.report.formats import percent, shortened
from cifarray.report.inputs import ReportDataset
from cifarray.report.scores import Predictions

STEPS = 7
MOST_NUMBERED = 20
"""Up to this many classes, each cell shows its count."""

LONGEST_NAME = 20
"""Characters that a label along the side is cut to."""

SMALLEST_NAMED_CELL = 9.0
"""Pixels; smaller cells are too narrow for a class name each."""


@dataclass(frozen=True)
class Pair:
    """How often rows of one class were taken for another."""

    label: int
    prediction: int
    rows: int
    share: float
    """Of the label's rows."""


@dataclass(frozen=True)
class Layout:
    """The layout, in CSS pixels."""

    cell: float
    left: float
    top: float
    classes: int
    tilt: int
    """Degrees by which the names above the columns are turned."""

    @property
    def side(self) -> float:
        """Width and height of the square of cells."""
        return self.cell * self.classes


def confusion(predictions: Predictions, num_classes: int) -> NDArray[np.int64]:
    """Return counts: row = label, column = prediction."""
    known = list(range(num_classes))
    counts = confusion_matrix(predictions.labels, predictions.predictions, labels=known)
    return np.asarray(counts, np.int64)


def row_normalized(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each label's shares of its rows: a row sums to 1, or to 0 for a class without any."""
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.zeros(counts.shape)
    np.divide(counts, rows, out=shares, where=rows > 0)
    return shares


def worst_pairs(counts: NDArray[np.int64], limit: int) -> list[Pair]:
    """Return the most frequent confusions, most rows first, then by label and prediction."""
    rows = counts.sum(axis=1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    labels, guesses = np.nonzero(wrong)
    order = np.lexsort((guesses, labels, -wrong[labels, guesses]))[:limit]
    return [
        Pair(int(a), int(b), int(wrong[a, b]), float(wrong[a, b] / rows[a]))
        for a, b in zip(labels[order], guesses[order], strict=True)
    ]


def taken_for(counts: NDArray[np.int64]) -> list[tuple[int, int] | None]:
    """Return for each class the other one that it was most often taken for, and how often."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return [(int(row.argmax()), int(row.max())) if row.any() else None for row in wrong]


def class_order(dataset: ReportDataset) -> list[int]:
    """Return labels by superclass, where there are any, then by label."""
    labels = range(len(dataset.classes))
    coarse = dataset.fine_to_coarse or tuple(0 for _ in labels)
    return sorted(labels, key=lambda label: (coarse[label], label))


def matrix(
    counts: NDArray[np.int64], dataset: ReportDataset, *, normalized: bool = False
) -> Markup:
    """Draw counts or shares; a cell's shade is its share of its label's rows either way."""
    order = class_order(dataset)
    ordered = counts[np.ix_(order, order)]
    shares = row_normalized(ordered)
    classes = len(order)
    cell = max(1.0, min(56.0, 820.0 / classes))
    names = [dataset.classes[label] for label in order]
    longest = min(LONGEST_NAME, max(map(len, [*names, *dataset.coarse_classes])))
    margin = 24 + 7 * longest
    tilt = -50 if longest > 2 else 0
    layout = Layout(cell=cell, left=margin, top=0.8 * margin, classes=classes, tilt=tilt)
    parts = [
        Markup('<rect class="ground" x="{}" y="{}" width="{}" height="{}"/>').format(
            layout.left, layout.top, layout.side, layout.side
        ),
        _shades(ordered, shares, layout),
        _numbers(ordered, shares, layout, normalized) if classes <= MOST_NUMBERED else Markup(""),
        _labels(names, dataset, order, layout),
        Markup('<rect class="cursor" width="{0}" height="{0}" visibility="hidden"/>').format(cell),
    ]
    filled = [
        [int(a), int(b), int(ordered[a, b])] for a, b in zip(*np.nonzero(ordered), strict=True)
    ]
    data = {"cell": cell, "left": layout.left, "top": layout.top, "names": names, "counts": filled}
    return Markup(
        '<svg class="figure matrix" viewBox="0 0 {} {}" style="max-width: {}px" role="img"'
        ' aria-label="{}" data-matrix="{}">{}</svg>'
    ).format(
        round(layout.left + layout.side + 10),
        round(layout.top + layout.side + 10),
        round(layout.left + layout.side + 10),
        "Confusion matrix, normalized" if normalized else "Confusion matrix",
        json.dumps(data, separators=(",", ":")),
        Markup("").join(parts),
    )


def _shades(counts: NDArray[np.int64], shares: NDArray[np.float64], layout: Layout) -> Markup:
    """One path for all cells of a shade; right and wrong ones have a hue each."""
    steps = np.ceil(shares * STEPS).astype(int)
    wrong = ~np.eye(layout.classes, dtype=bool)
    # a tenth of a class's rows taken for one other class is as bad as it gets
    steps = np.where(wrong, np.minimum(np.ceil(shares * 10 * STEPS), STEPS).astype(int), steps)
    parts = []
    for hue, mask in (("wrong", wrong), ("right", ~wrong)):
        for step in range(1, STEPS + 1):
            cells = np.argwhere(mask & (counts > 0) & (steps == step))
            if len(cells):
                parts.append(
                    Markup('<path class="{} shade-{}" d="{}"/>').format(
                        hue, step, "".join(_square(int(a), int(b), layout) for a, b in cells)
                    )
                )
    return Markup("").join(parts)


def _square(row: int, column: int, layout: Layout) -> str:
    gap = min(1.0, layout.cell / 10)
    x, y = layout.left + column * layout.cell, layout.top + row * layout.cell
    edge = layout.cell - gap
    return f"M{x:.2f} {y:.2f}h{edge:.2f}v{edge:.2f}h-{edge:.2f}z"


def _numbers(
    counts: NDArray[np.int64], shares: NDArray[np.float64], layout: Layout, normalized: bool
) -> Markup:
    """The figure in each cell that has one, and the other figure as its hover text."""
    texts = []
    for row, column in np.argwhere(counts > 0):
        count, share = int(counts[row, column]), float(shares[row, column])
        strong = share >= (0.5 if row == column else 0.06)
        texts.append(
            Markup('<text class="{}" x="{}" y="{}"><title>{}</title>{}</text>').format(
                "count strong" if strong else "count",
                round(layout.left + (column + 0.5) * layout.cell, 2),
                round(layout.top + (row + 0.5) * layout.cell, 2),
                *((count, f"{share:.2f}") if normalized else (percent(share, 1), count)),
            )
        )
    return Markup("").join(texts)


def _labels(
    names: Sequence[str], dataset: ReportDataset, order: Sequence[int], layout: Layout
) -> Markup:
    """Class names where they fit, else superclass names with lines between."""
    if layout.cell >= SMALLEST_NAMED_CELL or not dataset.fine_to_coarse:
        step = 1 if layout.cell >= SMALLEST_NAMED_CELL else -(-layout.classes // 50)
        spans = [(i, i + 1, name) for i, name in enumerate(names) if i % step == 0]
        lines = Markup("")
    else:
        groups = [dataset.superclass(label) for label in order]
        starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
        ends = [*starts[1:], layout.classes]
        spans = [(a, b, groups[a]) for a, b in zip(starts, ends, strict=True)]
        lines = Markup("").join(_divider(start, layout) for start in [*starts, layout.classes])
    return lines + Markup("").join(_name(a, b, name, layout) for a, b, name in spans)


def _name(start: int, end: int, name: str, layout: Layout) -> Markup:
    middle = (start + end) / 2 * layout.cell
    size = min(13.0, max(8.0, (end - start) * layout.cell * 0.8))
    across, down = layout.left + middle, layout.top + middle
    return Markup(
        '<text class="side" style="font-size: {}px" x="{}" y="{}">{}</text>'
        '<text class="head" style="font-size: {}px" transform="translate({} {}) rotate({})">'
        "{}</text>"
    ).format(
        *(round(size, 1), layout.left - 8, round(down, 2), shortened(name, LONGEST_NAME)),
        *(round(size, 1), round(across, 2), layout.top - 8, layout.tilt),
        shortened(name, LONGEST_NAME),
    )


def _divider(position: int, layout: Layout) -> Markup:
    at = position * layout.cell
    return Markup('<path class="divider" d="M{} {}h{}M{} {}v{}"/>').format(
        *(layout.left, round(layout.top + at, 2), layout.side),
        *(round(layout.left + at, 2), layout.top, layout.side),
    )
