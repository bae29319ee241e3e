"""bn_cnn_large and bn_cnn_small: convolutions with BatchNorm after each ReLU, pooled four times.

Two published PyTorch classifiers of CIFAR-10, normalized after "Batch Normalization: Accelerating
Deep Network Training by Reducing Internal Covariate Shift", https://arxiv.org/abs/1502.03167.
Pooling takes the maximum of 3x3 at stride 2, padded by 1, so that it halves a side and rounds up.

The published listing of the large one shares one BatchNorm between the two convolutions of a pair,
which makes 5,653,578 parameters, while its own table of layers counts each BatchNorm twice. Here
every convolution has its own, as in that table: 5,655,498. New here, in both: a dropout before the
last layer, with rate 0 unless a job says otherwise.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


def bn_cnn_large(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "BatchNormCNN":
    """Build the network of two convolutions per pooling and four hidden dense layers."""
    hidden = (128, 256, 512, 1024)
    return BatchNormCNN(num_classes, in_channels, image_size, dropout, per_stage=2, hidden=hidden)


def bn_cnn_small(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "BatchNormCNN":
    """Build the network of one convolution per pooling and one hidden dense layer."""
    return BatchNormCNN(num_classes, in_channels, image_size, dropout, per_stage=1, hidden=(128,))


class BatchNormCNN(nn.Module):
    """images_NCHW -> logits_NK.

    For 10 classes of 32x32 RGB images: 5,655,498 parameters as bn_cnn_large, 1,816,714 as
    bn_cnn_small.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropout: float,
        per_stage: int,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        features: list[nn.Module] = []
        for before, width in pairwise((in_channels, *WIDTHS)):
            for channels in (before, *[width] * (per_stage - 1)):
                features += _convolution(channels, width)
            features.append(nn.MaxPool2d(3, stride=2, padding=1))
        self.features = nn.Sequential(*features)
        height, width = (-(-side // 16) for side in image_size)
        dense = [
            layer
            for widths in pairwise((WIDTHS[-1] * height * width, *hidden))
            for layer in _dense(*widths)
        ]
        self.classifier = nn.Sequential(
            nn.Flatten(), *dense, nn.Dropout(dropout), nn.Linear(hidden[-1], num_classes)
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(out_channels),
    )


def _dense(in_features: int, out_features: int) -> tuple[nn.Module, ...]:
    return (
        nn.Linear(in_features, out_features),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(out_features),
    )
