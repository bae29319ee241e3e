"""How large a network is: weights, of these what learns, running statistics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarray.models.backbones import is_backbone, native_shape
from cifarray.models.registry import MODELS, RGB_32X32, build_model, check_model
from cifarray.models.summary import summarize
from cifarray.spec.job import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def count_parameters(model: nn.Module) -> int:
    """Number of weights, trainable or not; running statistics are not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_buffers(model: nn.Module) -> int:
    """Number of running statistics (BatchNorm's counter of batches is not one)."""
    named = model.named_buffers()
    return sum(b.numel() for name, b in named if not name.endswith("num_batches_tracked"))


def describe_model(
    spec: ModelSpec, num_classes: int, code: Path | None = None, *, layers: bool = False
) -> dict[str, Any]:
    """Name, sizes and input shape of a network, built without memory for its weights.

    With `layers` a list of them as well, as the report has it.

    Built for the images that it was made for, and one of the user's own for 32x32 RGB ones.

    Raises: JobError.
    """
    check_model(spec, code=code)
    import torch

    shape = _made_for(spec.name)
    with torch.device("meta"):
        model = build_model(spec, num_classes, shape, code)
        height, width, channels = shape
        images_NCHW = torch.empty(1, channels, height, width)
        listed = [asdict(layer) for layer in summarize(model, images_NCHW)] if layers else []
    total = count_parameters(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "name": spec.name,
        "parameters": {"total": total, "trainable": trainable, "buffers": count_buffers(model)},
        "input_shape": list(shape),
        **({"layers": listed} if layers else {}),
    }


def _made_for(name: str) -> tuple[int, int, int]:
    if is_backbone(name):
        return native_shape(name)
    return MODELS[name].input_shape if name in MODELS else RGB_32X32
