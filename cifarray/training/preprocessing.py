"""A job's preprocessing: fitted where it has to be, the same on every rank, kept in checkpoints."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cifarray.data.augment.normalize import (
    ROWS_AT_ONCE,
    Normalize,
    PixelSums,
    Spectrum,
    pixel_sums,
    spectrum,
)
from cifarray.data.manifest import Manifest
from cifarray.data.shard import Shard
from cifarray.errors import CheckpointError
from cifarray.models.timm_backbone import imagenet_numbers
from cifarray.spec.job import Job
from cifarray.training.distributed import share_buffers, sum_over_ranks, world

SpectrumOf = Callable[[], Spectrum | None]


def fit_normalize(
    job: Job,
    manifest: Manifest,
    shape: tuple[int, int, int],
    device: torch.device,
    train: SpectrumOf,
) -> Normalize:
    """The job's preprocessing of images held as `shape` (H, W, C). Called by all ranks together.

    `train` gives what `fit_spectrum` found, and is only asked for whitening.
    """
    mean, std = manifest.mean, manifest.std
    if job.preprocess.normalize == "imagenet":
        mean, std = imagenet_numbers(job.model.name)
    if job.preprocess.normalize != "whitening":
        return Normalize(job.preprocess, mean, std).to(device)
    assert job.preprocess.epsilon is not None  # whitening states it
    whitening = {name: torch.empty(size) for name, size in _shapes(shape).items()}
    if (found := train()) is not None:
        matrix_PP = found.matrix(job.preprocess.epsilon)
        whitening = {"mean": found.mean_P.float(), "matrix": matrix_PP.float()}
    normalize = Normalize(job.preprocess, mean, std, whitening).to(device)
    share_buffers(normalize)  # from rank 0, which alone has fitted it
    return normalize


def fit_spectrum(shard: Shard, values: int, device: torch.device) -> Spectrum | None:
    """How the images of all ranks vary, on rank 0; None on others. Called by all ranks together."""
    batches = (rows.images_NCHW for rows in shard.in_order(ROWS_AT_ONCE))
    mine = pixel_sums(batches, values, device)
    sums = (sum_over_ranks(part) for part in (mine.rows, mine.sums_P, mine.products_PP))
    found = PixelSums(*sums)
    return spectrum(found) if world()[0] == 0 else None


def preprocess_state(normalize: Normalize) -> dict[str, Any]:
    """What a checkpoint holds of it."""
    state = {
        "normalize": normalize.spec.normalize,
        "mean": normalize.mean,
        "std": normalize.std,
    }
    return state if normalize.whitening is None else state | {"whitening": normalize.whitening}


def restore_normalize(job: Job, state: dict[str, Any], shape: tuple[int, int, int]) -> Normalize:
    """The preprocessing of a checkpoint for images of `shape` (H, W, C), on the CPU.

    Raises: CheckpointError if it lacks what the job needs.
    """
    whitens = job.preprocess.normalize == "whitening"
    expected = _shapes(shape) if whitens else {}
    try:
        whitening: dict[str, Tensor] | None = state["whitening"] if whitens else None
        if {name: tuple(tensor.shape) for name, tensor in (whitening or {}).items()} != expected:
            raise ValueError("its whitening is for images of another size")
        if not all(tensor.is_floating_point() for tensor in (whitening or {}).values()):
            raise ValueError("its whitening has integer values")
        return Normalize(job.preprocess, state["mean"], state["std"], whitening)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint lacks what preprocess.normalize {job.preprocess.normalize} needs "
            f"({error}); use another checkpoint"
        ) from error


def _shapes(shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    values = math.prod(shape)
    return {"mean": (values,), "matrix": (values, values)}
