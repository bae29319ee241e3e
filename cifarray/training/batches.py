"""The batches of a rank: equal step counts, weights that make a step's gradient a global mean.

Shapes: N rows of a step on this rank, C channels, H and W the image's height and width.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from cifarray.data.augment import Augment
from cifarray.data.augment.mix import Mix
from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import Shard, seed_of

T = TypeVar("T")


@dataclass(frozen=True)
class MixPartners:
    """The other images within those of a batch."""

    labels_N: Tensor
    shares_N: Tensor
    """How much of each image is the other, 0 to 0.5."""


@dataclass(frozen=True)
class Batch:
    """What one step sees on one rank."""

    images_NCHW: Tensor
    labels_N: Tensor
    """Of a mixed image that with the larger share."""
    scale: float
    """Turns the sum of this rank's losses into its part of the global mean, which DDP averages."""
    second: MixPartners | None = None
    """Where images are mixed of two."""


@dataclass(frozen=True)
class StepPlan:
    """How an epoch is cut into steps: the same number on every rank, none of them empty."""

    sizes: tuple[int, ...]
    """Rows of each step on this rank."""
    scales: tuple[float, ...]
    """world_size / rows of each step over all ranks."""

    @staticmethod
    def make(shard_rows: Sequence[int], global_batch_size: int, rank: int) -> "StepPlan":
        """Cut each rank's rows into equally many, nearly equal pieces.

        An epoch has ceil(rows / global_batch_size) steps, so no step is a small remainder. Ranks
        may hold different numbers of rows; `scales` weighs each row of a step the same.
        """
        steps = min(-(-sum(shard_rows) // global_batch_size), min(shard_rows))
        cuts = [[rows * step // steps for step in range(steps + 1)] for rows in shard_rows]
        sizes = [[high - low for low, high in pairwise(cut)] for cut in cuts]
        totals = [sum(column) for column in zip(*sizes, strict=True)]
        return StepPlan(tuple(sizes[rank]), tuple(len(shard_rows) / total for total in totals))


class DataWait:
    """Measures how long a rank's loop waits for its batches, one epoch at a time.

    On a GPU the device's own clock counts: from the end of a step's last kernel until the next
    batch lies there. The host runs ahead of the device, so its waits say little.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[Any, Any]] = []

    def timed(self, batches: Iterator[T], device: torch.device) -> Iterator[T]:
        """The same batches; what was measured before is forgotten."""
        self._spans = []
        while True:
            begun = _mark(device)
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._spans.append((begun, _mark(device)))
            yield batch

    def seconds(self) -> float:
        """Waited in this epoch; ask once the device has done the epoch's work."""
        return sum(_between(begun, ready) for begun, ready in self._spans)


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begun: Any, ready: Any) -> float:
    if isinstance(begun, float):
        return float(ready - begun)
    return float(begun.elapsed_time(ready)) / 1000.0


@dataclass(frozen=True)
class TrainBatches:
    """Shuffled, augmented, normalized batches of one rank's train rows, drawn again each epoch."""

    shard: Shard
    plan: StepPlan
    augment: Augment
    normalize: Normalize
    seed: int
    rank: int
    channels_last: bool = False
    wait: DataWait = field(default_factory=DataWait)

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""
        return self.normalize.scale_C11.device

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of a whole epoch."""
        return len(self.plan.sizes)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The epoch's batches; they depend only on (seed, rank, epoch)."""
        return self.wait.timed(self._drawn(epoch), self.device)

    def _drawn(self, epoch: int) -> Iterator[Batch]:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        order = seed_of(self.seed, "order", self.rank, epoch)
        draws: torch.Generator | None = None
        batches = self.shard.shuffled(order, self.plan.sizes)
        for rows, scale in zip(batches, self.plan.scales, strict=True):
            if draws is None:
                draws = torch.Generator(rows.images_NCHW.device)
                draws.manual_seed(seed_of(self.seed, "augment", self.rank, epoch))
            images_NCHW, mix = self.augment.mix(self.augment(rows.images_NCHW, draws), draws)
            images_NCHW = self.normalize(images_NCHW).contiguous(memory_format=layout)
            labels_N, second = (rows.labels_N, None) if mix is None else _both(rows.labels_N, mix)
            yield Batch(images_NCHW, labels_N, scale, second)


def _both(labels_N: Tensor, mix: Mix) -> tuple[Tensor, MixPartners]:
    """The labels of mixed images: those of the larger share, and the others."""
    others_N, mostly_own_N = labels_N[mix.partners_N], mix.shares_N >= 0.5
    first_N = torch.where(mostly_own_N, labels_N, others_N)
    second_N = torch.where(mostly_own_N, others_N, labels_N)
    return first_N, MixPartners(second_N, torch.minimum(mix.shares_N, 1 - mix.shares_N))
