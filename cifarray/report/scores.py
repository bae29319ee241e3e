"""A network's predictions for every row of a split, and the exact figures computed from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cifarray.errors import WorkError

Z_95 = 1.959963984540054
"""The normal quantile at 0.975: two-sided 95 %."""

COLUMNS: dict[str, tuple[str, type]] = {
    "row_id": ("row_ids", np.int64),
    "label": ("labels", np.int64),
    "prediction": ("predictions", np.int64),
    "probability": ("probabilities", np.float64),
    "top5_hit": ("top5_hits", np.bool_),
    "loss": ("losses", np.float64),
}
"""Column of predictions.parquet -> (field of Predictions, dtype)."""


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, by default at 95 %.

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927. Unlike the
    normal interval it stays within 0 to 1 and keeps a width when all or none succeed.
    """
    if not 0 <= successes <= n or n == 0:
        raise WorkError(
            f"an interval requires 0 to n successes of n > 0 rows, not {successes} of {n}"
        )
    share, z2 = successes / n, z * z
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == n else center + half
    return low, high


@dataclass(frozen=True, eq=False)
class Predictions:
    """One entry per row of a split, sorted by row_id whatever order they are given in.

    Every figure is computed from whole rows in that order, so it does not depend on how many
    workers made them.
    """

    row_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    """Softmax probability of the prediction, 0 to 1."""
    top5_hits: NDArray[np.bool_]
    """Whether the label is among the five most probable classes."""
    losses: NDArray[np.float64]
    """Cross-entropy of the row in nats, without label smoothing."""

    def __post_init__(self) -> None:
        """Sort by row_id and refuse a row that is there twice."""
        arrays: dict[str, NDArray[Any]] = {
            name: np.asarray(getattr(self, name), dtype) for name, dtype in COLUMNS.values()
        }
        lengths = {name: array.shape for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or len(lengths["row_ids"]) != 1:
            raise WorkError(f"predictions require one entry per row in every field, not {lengths}")
        order = np.argsort(arrays["row_ids"], kind="stable")
        row_ids = arrays["row_ids"][order]
        twice = row_ids[1:][row_ids[1:] == row_ids[:-1]]
        if len(twice):
            raise WorkError(
                f"row {twice[0]} was evaluated twice; every row must count exactly once"
            )
        for name, array in arrays.items():
            object.__setattr__(self, name, array[order])

    @classmethod
    def join(cls, parts: "Sequence[Predictions]") -> "Predictions":
        """Put together what several workers evaluated."""
        if not parts:
            raise WorkError("no worker evaluated any row; at least one prediction is required")
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.row_ids)

    @property
    def correct(self) -> int:
        """The number of rows whose prediction is their label."""
        return int(np.count_nonzero(self.labels == self.predictions))

    @property
    def top1(self) -> float:
        """Correct rows over rows, 0 to 1; nan without rows."""
        return self.correct / self.rows if self.rows else math.nan

    @property
    def top5(self) -> float:
        """Rows whose label is among the five most probable classes, over rows."""
        return int(np.count_nonzero(self.top5_hits)) / self.rows if self.rows else math.nan

    @property
    def loss(self) -> float:
        """Mean loss over rows, from a sum that is rounded once; nan when a row's is."""
        if not self.rows:
            return math.nan
        if not np.isfinite(self.losses).all():
            return float(np.mean(self.losses))
        return math.fsum(self.losses.tolist()) / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of top1."""
        return wilson(self.correct, self.rows)

    def superclass_top1(self, fine_to_coarse: ArrayLike) -> float:
        """Return the share of rows whose prediction is in the superclass of the label."""
        coarse = np.asarray(fine_to_coarse, np.int64)
        hits = int(np.count_nonzero(coarse[self.labels] == coarse[self.predictions]))
        return hits / self.rows if self.rows else math.nan

    def most_confident_mistakes(self, count: int) -> NDArray[np.int64]:
        """Return positions of the wrong predictions with the highest probability, highest first."""
        wrong = np.flatnonzero(self.labels != self.predictions)
        order = np.lexsort((self.row_ids[wrong], -self.probabilities[wrong]))
        return np.asarray(wrong[order[:count]], np.int64)

    def to_table(self) -> pa.Table:
        """Return the columns of predictions.parquet."""
        return pa.table({column: getattr(self, name) for column, (name, _) in COLUMNS.items()})

    @classmethod
    def from_table(cls, table: pa.Table) -> "Predictions":
        """Read what `to_table` wrote."""
        missing = [column for column in COLUMNS if column not in table.column_names]
        if missing:
            raise WorkError(
                f"predictions require the columns {', '.join(COLUMNS)}; missing:"
                f" {', '.join(missing)}"
            )
        arrays: dict[str, Any] = {
            name: table.column(column).to_numpy() for column, (name, _) in COLUMNS.items()
        }
        return cls(**arrays)
