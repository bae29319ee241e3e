"""Steps that leave a worker a single image, which BatchNorm may not take; no torch on import.

BatchNorm wants two values per channel while it learns: two images, unless its map is larger than
one pixel.
"""

from collections.abc import Sequence
from pathlib import Path

from cifarray.errors import JobError
from cifarray.spec.job import Job

REFUSAL = "Expected more than 1 value per channel when training"
"""How torch begins to say it."""


def fewest_rows(shard_rows: Sequence[int], global_batch_size: int) -> int:
    """Rows of the smallest step of any rank, as `StepPlan` cuts them."""
    steps = min(-(-sum(shard_rows) // global_batch_size), min(shard_rows))
    return min(shard_rows) // steps


def check_lone_rows(
    job: Job,
    shard_rows: Sequence[int],
    shape: tuple[int, int, int],
    num_classes: int,
    code: Path | None = None,
) -> None:
    """Refuse steps of one row where the network cannot learn from one image.

    `shape` is (H, W, C) of the images as stored. One goes through the network on the meta device.

    Raises: JobError.
    """
    if fewest_rows(shard_rows, job.train.global_batch_size) > 1:
        return
    import torch

    from cifarray.training.checkpoint import build_network

    height, width, channels = job.preprocess.seen(shape)
    try:
        with torch.device("meta"):
            network = build_network(job, num_classes, shape, code).train()
            network(torch.empty(1, channels, height, width))
    except ValueError as error:
        if str(error).startswith(REFUSAL):
            raise JobError(
                f"train.global_batch_size {job.train.global_batch_size} leaves a worker a step of "
                f"one image, and BatchNorm of {job.model.name} wants two at {height}x{width} "
                "pixels; raise it, or take fewer workers"
            ) from error
    except Exception:  # a network of the user's own that knows no meta device
        return
