"""A small ConvMixer.

"Patches Are All You Need?", https://arxiv.org/abs/2201.09792. As in the paper: patches, then blocks
of a depthwise convolution with a residual and a pointwise one, GELU and BatchNorm after each. New
here: a dropout before the last layer.

Shapes: N images, C channels, H and W height and width, K classes.
"""

from torch import Tensor, nn


def conv_mixer(
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    dropout: float = 0.0,
    width: int = 48,
    depth: int = 4,
    kernel_size: int = 5,
    patch_size: int = 1,
) -> nn.Module:
    """images_NCHW -> logits_NK."""
    if min(image_size) < patch_size:
        raise ValueError(f"images of {image_size} are smaller than a patch of {patch_size}")
    return nn.Sequential(
        nn.Conv2d(in_channels, width, patch_size, stride=patch_size),
        *_activated(width),
        *(_block(width, kernel_size) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(width, num_classes),
    )


class Residual(nn.Module):
    """What it wraps, plus its input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The sum; same shape."""
        return self.layers(x_NCHW) + x_NCHW


def _block(width: int, kernel_size: int) -> nn.Module:
    depthwise = nn.Conv2d(width, width, kernel_size, padding="same", groups=width)
    pointwise = nn.Conv2d(width, width, 1)
    return nn.Sequential(Residual(depthwise, *_activated(width)), pointwise, *_activated(width))


def _activated(width: int) -> tuple[nn.Module, ...]:
    return nn.GELU(), nn.BatchNorm2d(width)
