"""From a training's records to samples of its metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cifarray.monitoring.registry import NO_LABELS, Sample

TRAIN, VALIDATION = {"split": "train"}, {"split": "validation"}
FIELDS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("epoch", "cifarray_epoch", NO_LABELS),
    ("step", "cifarray_step", NO_LABELS),
    ("train.running_loss", "cifarray_loss", TRAIN),
    ("validation.loss", "cifarray_loss", VALIDATION),
    ("train.running_top1", "cifarray_top1_ratio", TRAIN),
    ("validation.top1", "cifarray_top1_ratio", VALIDATION),
    ("lr", "cifarray_learning_rate", NO_LABELS),
    ("images_per_s", "cifarray_images_per_second", NO_LABELS),
    ("data_wait", "cifarray_data_wait_ratio", NO_LABELS),
    ("epoch_s", "cifarray_epoch_seconds", NO_LABELS),
)
"""Field of a record, and the metric with the labels that show it."""
LOSS = "train.running_loss"


def finite(value: object) -> float | None:
    """The number; None for anything else, NaN and infinities among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def epoch_samples(
    history: Sequence[Mapping[str, Any]], gpu_memory_bytes: int | None
) -> list[Sample]:
    """What the last of some records shows; a figure that is no finite number is left out."""
    if not history:
        return []
    found = [(name, finite(history[-1].get(field)), labels) for field, name, labels in FIELDS]
    found.append(("cifarray_gpu_memory_bytes", finite(gpu_memory_bytes), NO_LABELS))
    nans = sum(finite(record.get(LOSS)) is None for record in history)
    found.append(("cifarray_nan_epochs", float(nans), NO_LABELS))
    return [Sample(name, value, labels) for name, value, labels in found if value is not None]
