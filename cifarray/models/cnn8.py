"""cnn8: four pairs of convolutions, each pair pooled and twice as wide as the one before.

The plan of "Very Deep Convolutional Networks for Large-Scale Image Recognition",
https://arxiv.org/abs/1409.1556 (3x3 convolutions in pairs, 2x2 pooling, widths that double), as a
published Keras classifier of CIFAR-100 has it: LeakyReLU throughout, and one dropout, after the
first pair. Neither the slope nor that rate is stated: the slope is Keras' default of 0.3 and the
rate 0.25, as Keras' own CIFAR example has it in that place. What differs: weights start after He et
al., https://arxiv.org/abs/1502.01852, since eight layers without normalization otherwise fade out.

Shapes: N images, C channels, H height, W width, K classes.
"""

from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256)
HIDDEN = 128
SLOPE = 0.3


def cnn8(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.25,
) -> "CNN8":
    """Build cnn8; `dropout` is its only rate, after the first pair of convolutions."""
    return CNN8(num_classes, in_channels, image_size, dropout)


class CNN8(nn.Module):
    """images_NCHW -> logits_NK: 1,316,356 parameters for 100 classes of 32x32 RGB images."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        first, *others = pairwise((in_channels, *WIDTHS))
        self.features = nn.Sequential(
            *_pair(*first),
            nn.Dropout(dropout),
            *(layer for widths in others for layer in _pair(*widths)),
        )
        height, width = (side // 16 for side in image_size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(WIDTHS[-1] * height * width, HIDDEN),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(HIDDEN, num_classes),
        )
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _pair(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        # LeakyReLU before the pooling would give the same values, from four times as many.
        nn.MaxPool2d(2),
        nn.LeakyReLU(SLOPE, inplace=True),
    )
