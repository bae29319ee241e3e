"""A timm backbone with a head of our own: what `timm/<name>` builds.

"PyTorch Image Models", https://github.com/huggingface/pytorch-image-models. A backbone gives one
pooled row of outputs per image; the head is one linear layer, or a hidden dense layer with ReLU
before it. Dropout is before the last layer.

Shapes: N images, C channels, H height, W width, D outputs of the backbone, K classes.
"""

from typing import Any, Self

from torch import Tensor, nn

COLORS = 3


class TimmClassifier(nn.Module):
    """images_NCHW -> logits_NK, of gray images as three equal channels.

    The backbone's own outputs, as images of D channels and one pixel, go to the head alone.
    A frozen backbone is part of the network that never learns: its weights get no gradient, and it
    stays in eval mode, so that BatchNorm keeps its running statistics.
    """

    def __init__(self, backbone: nn.Module, outputs: int, head: nn.Module, frozen: bool) -> None:
        super().__init__()
        self.backbone, self.head, self.frozen = backbone, head, frozen
        self.outputs = outputs
        """D, how many numbers the backbone makes of an image."""
        if frozen:
            backbone.requires_grad_(False)
            backbone.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the trainable part."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, images_NCHW: Tensor) -> Tensor:
        """features_ND: the backbone's pooled outputs."""
        features_ND: Tensor = self.backbone(images_NCHW.expand(-1, COLORS, -1, -1))
        return features_ND

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one row per image."""
        given = tuple(images_NCHW.shape[1:]) == (self.outputs, 1, 1)
        features_ND = images_NCHW.flatten(1) if given else self.features(images_NCHW)
        logits_NK: Tensor = self.head(features_ND)
        return logits_NK


def timm_classifier(
    backbone: str,
    num_classes: int,
    in_channels: int = COLORS,
    image_size: tuple[int, int] = (224, 224),
    dropout: float = 0.0,
    head: int | None = None,
    frozen: bool = False,
) -> TimmClassifier:
    """Build timm's network of this name with random weights, its classifier replaced by the head.

    Any number of channels and any size that `check_size` lets through will do.
    """
    import timm  # the import takes a second, which other networks avoid

    del in_channels, image_size
    network: Any = timm.create_model(backbone, num_classes=0)
    outputs: int = getattr(network, "head_hidden_size", None) or network.num_features
    layers: list[nn.Module] = []
    if head is not None:
        layers += [nn.Linear(outputs, head), nn.ReLU(inplace=True)]
    layers += [nn.Dropout(dropout), nn.Linear(head or outputs, num_classes)]
    return TimmClassifier(network, outputs, nn.Sequential(*layers), frozen)
