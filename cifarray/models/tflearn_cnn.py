"""tflearn_cnn: three convolutions, two poolings and a wide dense layer.

TFLearn's CIFAR-10 example,
https://github.com/tflearn/tflearn/blob/master/examples/images/convnet_cifar10.py
(INPUT -> CONV -> POOL -> CONV -> CONV -> POOL -> FC -> FC). The published CIFAR-100 report that
used TFLearn states no widths, so these are the example's, 32, 64, 64 and 512. What differs: logits
instead of a softmax layer, which here is part of the loss; and layers start as PyTorch's do.

Shapes: N images, C channels, H height, W width, K classes.
"""

from torch import Tensor, nn

HIDDEN = 512


def tflearn_cnn(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.5,
) -> "TFLearnCNN":
    """Build TFLearn's CIFAR network."""
    return TFLearnCNN(num_classes, in_channels, image_size, dropout)


class TFLearnCNN(nn.Module):
    """images_NCHW -> logits_NK: 2,205,284 parameters for 100 classes of 32x32 RGB images."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            _pooling(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            _pooling(),
        )
        height, width = (-(-side // 4) for side in image_size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * height * width, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NK


def _pooling() -> nn.Module:
    # TFLearn pools with `same` padding: an odd side is rounded up.
    return nn.MaxPool2d(2, ceil_mode=True)
