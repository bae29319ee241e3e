"""lenet25 and what was tried with it: BatchNorm, one more dense layer, more convolutions.

The plan of "Gradient-Based Learning Applied to Document Recognition" (LeNet-5),
https://doi.org/10.1109/5.726791: unpadded convolutions, 2x2 pooling, dense layers. What differs
from the paper: ReLU and the maximum in pooling, full connections between the maps, and one hidden
dense layer of 50 instead of two of 120 and 84. lenet25_bn_after and lenet25_bn_before put
BatchNorm (https://arxiv.org/abs/1502.03167) behind or before the ReLU of each convolution; those
keep their biases, as published, although a BatchNorm right behind takes a bias out again.
lenet25_fc3 has a second hidden dense layer; its report states no width, so it has the first one's.
lenet25_optimized has five 3x3 convolutions, each with BatchNorm after its ReLU. All were trained
on 25 classes of CIFAR-100. New here, in all of them: a dropout before the last layer, with rate 0
unless a job says otherwise.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

HIDDEN = 50
Norm = Literal["none", "after", "before"]
"""Whether BatchNorm is before or after a convolution's ReLU."""


def lenet25(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "LeNet25":
    """Build the network without BatchNorm: 24,197 parameters for 25 classes of 32x32 RGB."""
    return _lenet("none", num_classes, in_channels, image_size, dropout)


def lenet25_bn_after(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "LeNet25":
    """Build the network with BatchNorm after each convolution's ReLU: 24,241 parameters."""
    return _lenet("after", num_classes, in_channels, image_size, dropout)


def lenet25_bn_before(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "LeNet25":
    """Build the network with BatchNorm before each convolution's ReLU: 24,241 parameters."""
    return _lenet("before", num_classes, in_channels, image_size, dropout)


def lenet25_fc3(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "LeNet25":
    """Build the one of three dense layers, 50, 50 and the last: 26,747 parameters."""
    hidden = (HIDDEN, HIDDEN)
    return _lenet("none", num_classes, in_channels, image_size, dropout, hidden)


def lenet25_optimized(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "LeNet25":
    """Build the one of five 3x3 convolutions: 599,725 parameters for 25 classes of 32x32 RGB."""
    features = nn.Sequential(
        *_convolution(in_channels, 16, 3, "after"),
        *_convolution(16, 32, 3, "after"),
        nn.MaxPool2d(2),
        *_convolution(32, 64, 3, "after"),
        *_convolution(64, 128, 3, "after"),
        *_convolution(128, 256, 3, "after"),
        nn.MaxPool2d(2),
    )
    height, width = (((side - 4) // 2 - 6) // 2 for side in image_size)
    return LeNet25(features, 256 * height * width, num_classes, dropout)


class LeNet25(nn.Module):
    """images_NCHW -> logits_NK: convolutions, then dense layers with ReLU and the last one."""

    def __init__(
        self,
        features: nn.Module,
        out_features: int,
        num_classes: int,
        dropout: float,
        hidden: Sequence[int] = (HIDDEN,),
    ) -> None:
        super().__init__()
        self.features = features
        dense = [
            layer
            for before, width in pairwise((out_features, *hidden))
            for layer in (nn.Linear(before, width), nn.ReLU(inplace=True))
        ]
        self.classifier = nn.Sequential(
            nn.Flatten(), *dense, nn.Dropout(dropout), nn.Linear(hidden[-1], num_classes)
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _lenet(
    norm: Norm,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    dropout: float,
    hidden: Sequence[int] = (HIDDEN,),
) -> LeNet25:
    features = nn.Sequential(
        *_convolution(in_channels, 6, 5, norm),
        nn.MaxPool2d(2),
        *_convolution(6, 16, 5, norm),
        nn.MaxPool2d(2),
    )
    height, width = (((side - 4) // 2 - 4) // 2 for side in image_size)
    return LeNet25(features, 16 * height * width, num_classes, dropout, hidden)


def _convolution(
    in_channels: int, out_channels: int, kernel: int, norm: Norm
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel)
    match norm:
        case "none":
            return convolution, nn.ReLU(inplace=True)
        case "after":
            return convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(out_channels)
        case "before":
            return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
