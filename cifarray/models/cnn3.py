"""cnn3: three convolutions with pooling, then two dense layers; small enough to tune on a laptop.

The plain convolutional network of CS231n's notes, https://cs231n.github.io/convolutional-networks/
(INPUT -> [CONV -> RELU -> POOL]*3 -> FC -> RELU -> FC), with dropout after
"Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
https://jmlr.org/papers/v15/srivastava14a.html.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = (32, 64, 128)
HIDDEN = 512


def cnn3(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.5,
    dropouts: Sequence[float] | None = None,
) -> "CNN3":
    """Build cnn3; `dropout` is the last of its three rates, `dropouts` are all of them."""
    rates = (0.1, 0.25, dropout) if dropouts is None else dropouts
    return CNN3(num_classes, in_channels, image_size, rates)


class CNN3(nn.Module):
    """images_NCHW -> logits_NK: 1,193,636 parameters for 100 classes of 32x32 RGB images."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropouts: Sequence[float],
    ) -> None:
        super().__init__()
        after_second_pool, after_third_pool, before_last = dropouts
        self.features = nn.Sequential(
            *_convolution(in_channels, WIDTHS[0]),
            *_convolution(WIDTHS[0], WIDTHS[1]),
            nn.Dropout(after_second_pool),
            *_convolution(WIDTHS[1], WIDTHS[2]),
            nn.Dropout(after_third_pool),
        )
        height, width = (side // 8 for side in image_size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(WIDTHS[2] * height * width, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(before_last),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    # ReLU before the pooling would give the same values, from four times as many.
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return convolution, nn.MaxPool2d(2), nn.ReLU(inplace=True)
