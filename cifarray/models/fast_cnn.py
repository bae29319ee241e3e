"""fast_cnn: seven convolutions with BatchNorm, made for the least compute on 32x32 images.

After airbench, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", https://arxiv.org/abs/2404.00498:
a 2x2 convolution to begin with, then three blocks of two 3x3 convolutions, the first of which is
pooled before its BatchNorm, and the maximum over what is left. What differs: no whitening in the
first convolution and no identity in the others, which start as PyTorch's do; ReLU instead of GELU,
which costs a CPU as much as a convolution; half the channels; no scaling of the logits.

Shapes: N images, C channels, H height, W width, K classes.
"""

from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256)


def fast_cnn(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "FastCNN":
    """Build the network; it takes images of any size from 9x9 up."""
    return FastCNN(num_classes, in_channels, dropout)


class FastCNN(nn.Module):
    """images_NCHW -> logits_NK: 1,189,156 parameters for 100 classes of RGB images."""

    def __init__(self, num_classes: int, in_channels: int, dropout: float) -> None:
        super().__init__()
        stem = nn.Conv2d(in_channels, WIDTHS[0], 2, bias=False)
        self.features = nn.Sequential(
            stem,
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
            *(layer for widths in pairwise(WIDTHS) for layer in _block(*widths)),
        )
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.last(self.dropout(self.features(images_NCHW).amax((2, 3))))
        return logits_NK


def _block(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.MaxPool2d(2),  # before BatchNorm and ReLU, which then see a quarter of the values
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
