"""Checks of a job that need its network, made before it trains; no torch on import.

BatchNorm requires two values per channel while it learns: two images, unless its map is larger than
one pixel. A pattern of `optimizer.groups` has to match a parameter.
"""

from collections.abc import Sequence
from pathlib import Path

from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.training.optimizers import parameter_groups

REFUSAL = "Expected more than 1 value per channel when training"
"""How torch's sentence on a single value starts."""


def fewest_rows(shard_rows: Sequence[int], global_batch_size: int) -> int:
    """Rows of the smallest step of any rank, as `StepPlan` cuts them."""
    steps = min(-(-sum(shard_rows) // global_batch_size), min(shard_rows))
    return min(shard_rows) // steps


def check_network(
    job: Job,
    shard_rows: Sequence[int],
    shape: tuple[int, int, int],
    num_classes: int,
    code: Path | None = None,
) -> None:
    """Refuse steps of one row that the network cannot learn from, and patterns without a match.

    `shape` is (H, W, C) of the images as stored. The network is built on the meta device.

    Raises: JobError.
    """
    has_lone_row = fewest_rows(shard_rows, job.train.global_batch_size) == 1
    if not has_lone_row and not job.optimizer.groups:
        return
    import torch

    from cifarray.training.checkpoint import build_network

    height, width, channels = job.preprocess.seen(shape)
    try:
        with torch.device("meta"):
            network = build_network(job, num_classes, shape, code).train()
            if has_lone_row:
                network(torch.empty(1, channels, height, width))
    except ValueError as error:
        if str(error).startswith(REFUSAL):
            raise JobError(
                f"train.global_batch_size {job.train.global_batch_size} leaves one worker a step "
                f"with one image, but BatchNorm of {job.model.name} requires two at "
                f"{height}x{width} pixels; raise it, or use fewer workers"
            ) from error
        return
    except Exception:  # a user-defined network that does not work on the meta device
        return
    parameter_groups(job.optimizer, network.named_parameters())
