"""timm's networks as `timm/<name>`: which there are, what weights were trained on, which sizes fit.

timm itself is asked for all of it, and imported when one of its networks is named: that takes
seconds, since it imports torch.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from cifarray.errors import JobError
from cifarray.spec.load import nearest

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm/"
NATIVE_SIZE = (224, 224, 3)
"""(H, W, C) of a network for which timm does not say it."""
EXAMPLES = "timm/resnet50, timm/mobilenetv2_100 and timm/inception_v3"
Numbers = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET_NUMBERS: Numbers = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def is_backbone(name: str) -> bool:
    """Whether the name is `timm/<name>`; timm may not know it."""
    return name.startswith(PREFIX)


def check_backbone(name: str) -> None:
    """Refuse a name that timm does not have. Raises: JobError."""
    import timm

    wanted, dot, tag = name.removeprefix(PREFIX).partition(".")
    known = timm.list_models()
    if wanted not in known:
        close = nearest(wanted, known)
        hint = close if close.startswith("did") else f"it has {len(known)}, among them {EXAMPLES}"
        raise JobError(f"timm has no network '{wanted}'; {hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{wanted}.*")]
    if dot and tag not in tags:
        raise JobError(f"timm has no weights '{tag}' for {PREFIX}{wanted}; {nearest(tag, tags)}")


def published_config(name: str) -> Any:
    """What timm says of a network's published weights: `mean`, `std`, `input_size`, addresses.

    None if it says nothing.
    """
    import timm

    return timm.get_pretrained_cfg(name.removeprefix(PREFIX))


def native_shape(name: str) -> tuple[int, int, int]:
    """(H, W, C) of the images that timm made the network for."""
    config = published_config(name)
    if config is None:
        return NATIVE_SIZE
    channels, height, width = config.input_size
    return height, width, channels


@cache
def check_size(name: str, shape: tuple[int, int, int]) -> None:
    """Refuse images of `shape` (H, W, C) that the network cannot take.

    One image goes through it on the meta device, which computes shapes alone.

    Raises: JobError, with the sizes that it takes.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise JobError(f"{name} takes images of 1 or 3 channels, not {channels}")
    native = native_shape(name)[:2]
    if _takes(name, height, width) or not _takes(name, *native):  # else the trial proves nothing
        return
    smallest = _smallest(name, min(native))
    any_larger = _takes(
        name, smallest + 1, smallest + 1
    )  # not networks of patches, whose sizes are fixed
    if min(height, width) < smallest and any_larger:
        raise JobError(
            f"{name} takes images of at least {smallest}x{smallest} pixels, not {height}x{width}; "
            "choose another model, or set preprocess.resize"
        )
    raise JobError(
        f"{name} takes images of {native[0]}x{native[1]} pixels, not {height}x{width}; "
        f"set preprocess.resize={native[0]}"
    )


def _smallest(name: str, side: int) -> int:
    """The smallest square that the network takes, given that it takes squares of `side`."""
    low, high = 0, side
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(name, middle, middle) else (middle, high)
    return high


@cache
def _without_memory(name: str) -> nn.Module:
    """The network on the meta device, in eval mode."""
    import timm
    import torch

    with torch.device("meta"):
        backbone: nn.Module = timm.create_model(name.removeprefix(PREFIX), num_classes=0)
    return backbone.eval()


def _takes(name: str, height: int, width: int) -> bool:
    import torch

    backbone = _without_memory(name)
    with torch.no_grad(), torch.device("meta"):
        try:
            backbone(torch.empty(1, 3, height, width))
        except Exception:  # timm's networks fail with many kinds of errors
            return False
    return True


def imagenet_numbers(name: str) -> Numbers:
    """Channel means and deviations of pixels from 0 to 1, for a name such as timm/resnet50."""
    config = published_config(name) if is_backbone(name) else None
    return IMAGENET_NUMBERS if config is None else (config.mean, config.std)
