"""The figures that every epoch records, and which way is better."""

from typing import Literal

EPOCH_METRICS: dict[str, Literal["max", "min"]] = {
    "validation.top1": "max",
    "validation.top5": "max",
    "validation.loss": "min",
    "train.running_top1": "max",
    "train.running_loss": "min",
}


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether a value of this metric beats another."""
    return value > than if EPOCH_METRICS[metric] == "max" else value < than
