"""alexnet32: AlexNet's eight layers for images of 32x32 pixels.

"ImageNet Classification with Deep Convolutional Neural Networks",
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks:
convolutions of 96, 256, 384, 384 and 256 channels, 3x3 pooling at stride 2 behind the first, the
second and the last, two dense layers of 4096 with dropout 0.5.

The published listing for CIFAR-100 cannot be built: its first convolution (11x11 at stride 4,
unpadded) and pooling leave 3x3 of a 32x32 image, on which it puts another unpadded 11x11
convolution. What was changed: the first convolution is 5x5 at stride 1 and padded, so that the
three poolings bring 32x32 to 15x15, 7x7 and 3x3; the others have the paper's sizes (5x5, then
3x3) and are padded as there. Left out: the paper's local response normalization and its halves on
two GPUs. Weights start after He et al., https://arxiv.org/abs/1502.01852, where the paper drew all
from one narrow normal distribution.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence

from torch import Tensor, nn

HIDDEN = 4096


def alexnet32(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.5,
    dropouts: Sequence[float] | None = None,
) -> "AlexNet32":
    """Build alexnet32; `dropout` is the last of its two rates, `dropouts` are both."""
    rates = (0.5, dropout) if dropouts is None else dropouts
    return AlexNet32(num_classes, in_channels, image_size, rates)


class AlexNet32(nn.Module):
    """images_NCHW -> logits_NK: 30,351,844 parameters for 100 classes of 32x32 RGB images."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropouts: Sequence[float],
    ) -> None:
        super().__init__()
        after_first, before_last = dropouts
        self.features = nn.Sequential(
            *_convolution(in_channels, 96, 5),
            nn.MaxPool2d(3, stride=2),
            *_convolution(96, 256, 5),
            nn.MaxPool2d(3, stride=2),
            *_convolution(256, 384, 3),
            *_convolution(384, 384, 3),
            *_convolution(384, 256, 3),
            nn.MaxPool2d(3, stride=2),
        )
        height, width = (_pooled(_pooled(_pooled(side))) for side in image_size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * height * width, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(after_first),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(before_last),
            nn.Linear(HIDDEN, num_classes),
        )
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _convolution(in_channels: int, out_channels: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return convolution, nn.ReLU(inplace=True)


def _pooled(side: int) -> int:
    """What 3x3 pooling at stride 2 leaves of a side."""
    return (side - 3) // 2 + 1
