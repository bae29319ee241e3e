"""The pixels that ImageNet's published weights were trained on, per backbone; known without torch.

timm's own configurations say so: most backbones saw images less ImageNet's channel means and over
its deviations, those that come from TensorFlow's Inception saw pixels from -1 to 1.
"""

Numbers = tuple[tuple[float, float, float], tuple[float, float, float]]
USUAL: Numbers = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION: Numbers = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
INCEPTION_BACKBONES = ("inception_v3", "inception_v4", "inception_resnet_v2", "mobilenetv1")
"""How the names of those begin in timm."""


def imagenet_numbers(name: str) -> Numbers:
    """Channel means and deviations of pixels from 0 to 1, for a name such as timm/resnet50."""
    backbone = name.removeprefix("timm/")
    # Gluon's weights of inception_v3 are a port of their own.
    inception = backbone.startswith(INCEPTION_BACKBONES) and not backbone.endswith(".gluon_in1k")
    return INCEPTION if inception else USUAL
