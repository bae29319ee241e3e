"""The pixels that ImageNet's published weights were trained on, per backbone.

Most saw images less ImageNet's channel means and over its deviations, some pixels from -1 to 1;
timm says which for each of its networks.
"""

from cifarray.models.backbones import is_backbone, published_config

Numbers = tuple[tuple[float, float, float], tuple[float, float, float]]
USUAL: Numbers = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def imagenet_numbers(name: str) -> Numbers:
    """Channel means and deviations of pixels from 0 to 1, for a name such as timm/resnet50."""
    config = published_config(name) if is_backbone(name) else None
    return USUAL if config is None else (config.mean, config.std)
