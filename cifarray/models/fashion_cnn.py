"""fashion_cnn: eleven convolutions for gray 28x28 images, with BatchNorm and rising dropout.

A published Keras classifier of Fashion-MNIST (https://arxiv.org/abs/1708.07747): two convolutions
of 16 channels; four blocks of two convolutions, BatchNorm and pooling; one more convolution with
pooling; three dense layers. Normalization follows "Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift", https://arxiv.org/abs/1502.03167, once per block,
and stands after the ReLU. Keras counts its running statistics (1,344) among the parameters,
1,813,050 in all. What differs: BatchNorm has PyTorch's momentum and epsilon, and layers start as
PyTorch's do.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (16, 32, 64, 128, 256)
HIDDEN = (128, 64)
DROPOUTS = (0.1, 0.2, 0.25, 0.3, 0.6, 0.4)
"""After the first three blocks, after the last convolution, after each hidden dense layer."""


def fashion_cnn(
    num_classes: int,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    dropout: float = DROPOUTS[-1],
    dropouts: Sequence[float] | None = None,
) -> "FashionCNN":
    """Build fashion_cnn; `dropout` is the last of its six rates, `dropouts` are all of them."""
    rates = (*DROPOUTS[:-1], dropout) if dropouts is None else dropouts
    return FashionCNN(num_classes, in_channels, image_size, rates)


class FashionCNN(nn.Module):
    """images_NCHW -> logits_NK: 1,811,706 parameters for 10 classes of 28x28 gray images."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropouts: Sequence[float],
    ) -> None:
        super().__init__()
        *after_blocks, after_convolution, after_first, before_last = dropouts
        stages: list[nn.Module] = [
            *_convolution(in_channels, WIDTHS[0]),
            *_convolution(WIDTHS[0], WIDTHS[0]),
        ]
        for widths, rate in zip(pairwise(WIDTHS), (*after_blocks, None), strict=True):
            stages += _block(*widths)
            if rate is not None:
                stages.append(nn.Dropout(rate))
        stages += [
            *_convolution(WIDTHS[-1], WIDTHS[-1]),
            nn.Dropout(after_convolution),
            # Keras' `same` padding: the single pixel that 28x28 has come to stays one.
            nn.MaxPool2d(2, ceil_mode=True),
        ]
        self.features = nn.Sequential(*stages)
        height, width = (-(-(side // 16) // 2) for side in image_size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            *_dense(WIDTHS[-1] * height * width, HIDDEN[0], after_first),
            *_dense(HIDDEN[0], HIDDEN[1], before_last),
            nn.Linear(HIDDEN[1], num_classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)


def _block(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        *_convolution(in_channels, out_channels),
        *_convolution(out_channels, out_channels),
        nn.BatchNorm2d(out_channels),
        nn.MaxPool2d(2),
    )


def _dense(in_features: int, out_features: int, dropout: float) -> tuple[nn.Module, ...]:
    return (
        nn.Linear(in_features, out_features),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(out_features),
        nn.Dropout(dropout),
    )
