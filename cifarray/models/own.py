"""What a network of the user's own has to be, tried with blank images; no torch on import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cifarray.errors import JobError

if TYPE_CHECKING:
    from torch import nn

TRIED_IMAGES = 2
"""BatchNorm wants two values per channel while it learns."""
SHOWN = 6


def check_own_network(
    name: str, model: object, num_classes: int, shape: tuple[int, int, int]
) -> None:
    """Put blank images through the network, as it is evaluated and as it is trained.

    It also gives lazy layers their shapes before DDP. Neither its buffers nor torch's random state
    change. Raises: JobError where it takes no images of `shape` (H, W, C), or gives no logits.
    """
    import torch
    from torch import nn

    if not isinstance(model, nn.Module):
        raise JobError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    was_training = model.training
    try:
        with torch.no_grad():
            _try(name, model.eval(), 1, num_classes, shape, "")
            with _left_as_it_was(model):
                _try(name, model.train(), TRIED_IMAGES, num_classes, shape, " in training mode")
    finally:
        model.train(was_training)


def unused_parameters(model: nn.Module, num_classes: int, shape: tuple[int, int, int]) -> list[str]:
    """Names of the parameters that learn and get no gradient from a step of blank images.

    DDP waits for the gradient of each of them, and raises at the second step.
    """
    import torch
    from torch.nn import functional

    height, width, channels = shape
    was_training, some = model.training, next(model.parameters(), None)
    if some is None:
        return []
    images_NCHW = torch.zeros(TRIED_IMAGES, channels, height, width, device=some.device)
    labels_N = torch.arange(TRIED_IMAGES, device=some.device) % num_classes
    with _left_as_it_was(model), torch.enable_grad():
        functional.cross_entropy(model.train()(images_NCHW), labels_N).backward()
        unused = [n for n, w in model.named_parameters() if w.requires_grad and w.grad is None]
        model.zero_grad(set_to_none=True)
    model.train(was_training)
    return unused


def check_unused(
    name: str, model: nn.Module, num_classes: int, shape: tuple[int, int, int], workers: int
) -> None:
    """Refuse parameters that get no gradient where DDP waits for one; else remark on them.

    Raises: JobError.
    """
    unused = unused_parameters(model, num_classes, shape)
    if not unused:
        return
    shown = ", ".join(unused[:SHOWN]) + (f" and {len(unused) - SHOWN} more" * (len(unused) > SHOWN))
    told = f"parameters of {name} are not used in producing the loss: {shown}"
    if workers == 1:
        print(f"warning: {told}; they keep the values that they begin with", flush=True)
        return
    raise JobError(
        f"{told}; with {workers} workers DDP waits for their gradients: remove those layers, set "
        "requires_grad=False on their parameters, or train on one worker"
    )


def _try(
    name: str,
    model: nn.Module,
    images: int,
    num_classes: int,
    shape: tuple[int, int, int],
    mode: str,
) -> None:
    import torch

    height, width, channels = shape
    try:
        logits_NK: Any = model(torch.zeros(images, channels, height, width))
    except Exception as error:
        raise JobError(
            f"{name} does not take images of {channels}x{height}x{width}{mode}: {said(error)}"
        ) from error
    if not isinstance(logits_NK, torch.Tensor) or tuple(logits_NK.shape) != (images, num_classes):
        got = getattr(logits_NK, "shape", type(logits_NK).__name__)
        got = list(got) if isinstance(got, torch.Size) else got
        raise JobError(f"{name} wants to give logits of [images, {num_classes}], not {got}{mode}")


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what a trial changes: buffers such as running statistics, and torch's random state."""
    import torch

    devices = {w.device for w in model.parameters() if w.device.type == "cuda"}
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in before and before[name].shape == buffer.shape:
                buffer.copy_(before[name])


def said(error: Exception) -> str:
    """An error of somebody else's code, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
