"""What a network of the user's own has to be, tried with one image; no torch on import."""

from cifarray.errors import JobError


def check_own_network(
    name: str, model: object, num_classes: int, shape: tuple[int, int, int]
) -> None:
    """Put one blank image through the network: also gives lazy layers their shapes before DDP.

    Raises: JobError where it takes no images of `shape` (H, W, C), or gives no logits of them.
    """
    import torch
    from torch import nn

    if not isinstance(model, nn.Module):
        raise JobError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    height, width, channels = shape
    was_training = model.training
    try:
        with torch.no_grad():
            logits_NK = model.eval()(torch.zeros(1, channels, height, width))
    except Exception as error:
        raise JobError(
            f"{name} does not take images of {channels}x{height}x{width}: {said(error)}"
        ) from error
    model.train(was_training)
    if not isinstance(logits_NK, torch.Tensor) or tuple(logits_NK.shape) != (1, num_classes):
        got = getattr(logits_NK, "shape", type(logits_NK).__name__)
        got = list(got) if isinstance(got, torch.Size) else got
        raise JobError(f"{name} wants to give logits of [images, {num_classes}], not {got}")


def said(error: Exception) -> str:
    """An error of somebody else's code, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
