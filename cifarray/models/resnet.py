"""ResNet-18 for small images.

"Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385, with the widths
and depths of the paper's ImageNet network (table 1) and the stem of its CIFAR networks (section
4.2): 3x3 at stride 1 and no pooling, so that 32x32 images reach the last stage as 4x4. Shortcuts
that change shape are 1x1 convolutions (option B). New here: a dropout before the last layer.

Shapes: N images, C channels, H height, W width, K classes.
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
    return ResNet(num_classes, in_channels, depths=(2, 2, 2, 2), dropout=dropout)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: x_NCHW -> x_NDhw, with h = H / stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The block's output, after the last ReLU."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x_NCHW)))))
        out: Tensor = self.relu(residual + self.shortcut(x_NCHW))
        return out


class ResNet(nn.Module):
    """images_NCHW -> logits_NK: 11,220,132 parameters as ResNet-18 for 100 classes of RGB."""

    def __init__(
        self, num_classes: int, in_channels: int, depths: Sequence[int], dropout: float
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
                blocks.append(BasicBlock(channels, width, stride))
                channels = width
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
