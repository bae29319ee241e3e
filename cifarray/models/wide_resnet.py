"""Wide residual networks for small images.

"Wide Residual Networks", https://arxiv.org/abs/1605.07146 (table 1): a 3x3 stem of 16 channels,
three stages of pre-activated blocks at strides 1, 2 and 2, average pooling, one dense layer; depth
28 means four blocks per stage, and widening factor 10 widths of 160, 320 and 640. The paper's
dropout stands between the two convolutions of a block, at rate 0.3 where it is used (section 3.3);
`model.dropout` sets it in all twelve blocks, and the default is the paper's network without it.
A block that changes the number of channels has a 1x1 convolution of its activated input as its
shortcut, as in the authors' code.

Shapes: N images, C channels, H height, W width, D output channels, K classes.
"""

from torch import Tensor, nn

STEM = 16
STAGE_WIDTHS = (16, 32, 64)
"""Of the network that is not widened."""


def wide_resnet28_10(
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    dropout: float = 0.0,
) -> "WideResNet":
    """Build WRN-28-10; any `image_size` will do, since its last stage is averaged over space."""
    del image_size
    return WideResNet(num_classes, in_channels, blocks_per_stage=4, widen=10, dropout=dropout)


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, and a shortcut: x_NCHW -> x_NDhw."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The sum of residual and shortcut, which the next block normalizes."""
        activated_NCHW = self.relu(self.bn1(x_NCHW))
        inner = self.dropout(self.relu(self.bn2(self.conv1(activated_NCHW))))
        shortcut = x_NCHW if self.shortcut is None else self.shortcut(activated_NCHW)
        out: Tensor = shortcut + self.conv2(inner)
        return out


class WideResNet(nn.Module):
    """images_NCHW -> logits_NK: 36,536,884 parameters as WRN-28-10 for 100 classes of RGB."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        blocks_per_stage: int,
        widen: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        channels = STEM
        for stage, width in enumerate(STAGE_WIDTHS):
            for i in range(blocks_per_stage):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(WideBlock(channels, width * widen, stride, dropout))
                channels = width * widen
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        logits_NK: Tensor = self.classifier(self.blocks(self.stem(images_NCHW)))
        return logits_NK
