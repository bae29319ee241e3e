"""ResNet-18 and ResNet-50 for small images.

"Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385, with the blocks,
widths and depths of the paper's ImageNet networks (table 1) and the stem of its CIFAR networks
(section 4.2): 3x3 at stride 1 and no pooling, so that 32x32 images reach the last stage as 4x4.
Shortcuts that change shape are 1x1 convolutions (option B). A bottleneck strides in its 3x3
convolution, not in its first 1x1 as in the paper, so that it skips no pixel; torchvision does so
too. New here: a dropout before the last layer.

Shapes: N images, C channels, H height, W width, D output channels, K classes.
"""

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


def resnet18(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "ResNet":
    """Build ResNet-18; any `image_size` will do, since its last stage is averaged over space."""
    del image_size
    return ResNet(num_classes, in_channels, BasicBlock, depths=(2, 2, 2, 2), dropout=dropout)


def resnet50(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "ResNet":
    """Build ResNet-50; any `image_size` will do, since its last stage is averaged over space."""
    del image_size
    return ResNet(num_classes, in_channels, Bottleneck, depths=(3, 4, 6, 3), dropout=dropout)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: x_NCHW -> x_NDhw, with h = H / stride."""

    expansion = 1

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The block's output, after the last ReLU."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x_NCHW)))))
        out: Tensor = self.relu(residual + self.shortcut(x_NCHW))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: x_NCHW -> x_NDhw, with D = 4 * width."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The block's output, after the last ReLU."""
        narrow = self.relu(self.bn1(self.conv1(x_NCHW)))
        narrow = self.relu(self.bn2(self.conv2(narrow)))
        out: Tensor = self.relu(self.bn3(self.conv3(narrow)) + self.shortcut(x_NCHW))
        return out


class ResNet(nn.Module):
    """images_NCHW -> logits_NK.

    For 100 classes of RGB images: 11,220,132 parameters as ResNet-18, 23,705,252 as ResNet-50.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        channels = WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(block(channels, width, stride))
                channels = block.expansion * width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.blocks(self.stem(images_NCHW)))
        return logits_NK


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )
