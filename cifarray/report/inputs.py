"""The inputs of a report: one record, filled in by training and sweeps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.errors import WorkError
from cifarray.metrics import DEFAULT_OBJECTIVE, best_epoch, finite
from cifarray.report.network import Layer, Shape
from cifarray.report.scores import Predictions
from cifarray.spec.run import RunSpec

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ReportDataset:
    """What a report needs to know about the dataset."""

    name: str
    title: str
    digest: str
    classes: tuple[str, ...]
    """Names of the labels that the job predicts, by label."""
    coarse_classes: tuple[str, ...] = ()
    fine_to_coarse: tuple[int, ...] = ()
    """Superclass of each class; empty if the dataset has none or the job predicts them."""
    left_out: tuple[Mapping[str, Any], ...] | None = None
    """What was left out of its source, by kind and reason; None if that was not counted."""

    def __post_init__(self) -> None:
        """Refuse superclasses that do not fit the classes."""
        if self.fine_to_coarse and len(self.fine_to_coarse) != len(self.classes):
            raise WorkError(
                f"fine_to_coarse requires one superclass for each of {len(self.classes)} classes,"
                f" not {len(self.fine_to_coarse)}"
            )

    def superclass(self, label: int) -> str:
        """Return the name of a class's superclass; empty if there is none."""
        return self.coarse_classes[self.fine_to_coarse[label]] if self.fine_to_coarse else ""


@dataclass(frozen=True, eq=False)
class Mistake:
    """A test row that was predicted wrongly, with its picture."""

    row_id: int
    label: int
    prediction: int
    probability: float
    image: NDArray[np.uint8]
    """Height, width, channels; 1 or 3 channels."""


@dataclass(frozen=True)
class Best:
    """The best value of the sweep's metric that a trial reached, and the first epoch with it."""

    value: float
    epoch: int


@dataclass(frozen=True)
class Trial:
    """One configuration of a sweep and what came of it."""

    id: str
    parameters: Mapping[str, Any]
    """Dotted job field -> value."""
    epochs: int
    state: str
    """finished, stopped early, failed or unfinished."""
    top1: float | None
    """Best validation.top1 so far."""
    history: Sequence[Mapping[str, Any]] = ()
    error: str | None = None

    @classmethod
    def from_mapping(cls, trial: Mapping[str, Any]) -> "Trial":
        """Read a trial as a sweep hands it over."""
        return cls(
            id=str(trial["id"]),
            parameters=dict(trial["params"]),
            epochs=int(trial["epochs"]),
            state=str(trial["state"]),
            top1=finite(trial.get(DEFAULT_OBJECTIVE)),
            history=tuple(trial.get("history") or ()),
            error=trial.get("error"),
        )

    def series(self, metric: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of every epoch that has a finite value of the metric."""
        return series(self.history, metric)

    def best(self, metric: str) -> Best | None:
        """Return the best value of a metric over the epochs; None if no epoch reported it."""
        record = best_epoch(self.history, metric)
        if record is not None:
            return Best(float(record[metric]), int(record["epoch"]))
        known = metric == DEFAULT_OBJECTIVE and self.top1 is not None and not self.history
        return Best(self.top1 or 0.0, self.epochs) if known else None


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """Everything that a report says, as measured; for a sweep, of its best trial."""

    spec: RunSpec
    dataset: ReportDataset
    model_parameters: int
    world_size: int
    threads: int
    """torch's threads in each worker."""
    hardware: Mapping[str, Any]
    images_per_s: float | None
    """Train rows over step time after the first epoch; None if there was no second."""
    duration_s: float
    """From submission to the report."""
    history: Sequence[Mapping[str, Any]]
    """One record per epoch, as in metrics.jsonl."""
    predictions: Mapping[str, Predictions]
    """For train, validation and test: of the best checkpoint, in eval mode, over every row."""
    best_epoch: int
    input_shape: Shape
    """Height, width, channels."""
    layers: Sequence[Layer] = ()
    mistakes: Sequence[Mistake] = ()
    trials: Sequence[Mapping[str, Any]] | None = None
    """Of a sweep: id, params, epochs, state, validation.top1, history and error of each trial."""
    best_trial_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse inputs that would make an incomplete report."""
        missing = [split for split in SPLITS if split not in self.predictions]
        if missing:
            raise WorkError(
                f"a report requires predictions of {', '.join(SPLITS)}; no {missing[0]}"
            )

    @property
    def sweep_trials(self) -> list[Trial]:
        """The trials in the order given; empty for a run that is not a sweep."""
        return [Trial.from_mapping(trial) for trial in self.trials or ()]


def series(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Return (epoch, value) of the records with a finite value under the key."""
    points = [(int(record["epoch"]), finite(record.get(key))) for record in history]
    return [(epoch, value) for epoch, value in points if value is not None]


def images_per_s(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return train rows over step time after the first epoch; None without a second epoch."""
    later = history[1:]
    seconds = math.fsum(float(record["step_s"]) for record in later)
    return math.fsum(float(record["train_rows"]) for record in later) / seconds if seconds else None


def epoch_s(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean seconds per epoch, validation included; None without a finite one."""
    seconds = [value for _, value in series(history, "epoch_s")]
    return math.fsum(seconds) / len(seconds) if seconds else None
