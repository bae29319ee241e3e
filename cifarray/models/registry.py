"""The registry of networks: names, job fields that each uses, how each is built; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarray.errors import JobError
from cifarray.models.timm_backbone import (
    PREFIX,
    check_backbone,
    check_size,
    is_backbone,
    published_config,
)
from cifarray.models.user_network import check_factory, check_network, import_factory, in_one_line
from cifarray.spec.job import ModelSpec
from cifarray.spec.load import unknown_name

if TYPE_CHECKING:
    from torch import nn

HEAD_OPTIONS = frozenset({"head", "frozen", "features"})
"""The fields of a ModelSpec that only a timm backbone with our head uses."""
USER_NETWORK_READS = frozenset({"dropout", "dropouts", "args", "weights"})
"""The fields that a user-defined network uses."""
RGB_32X32 = (32, 32, 3)


@dataclass(frozen=True)
class ModelEntry:
    """A network of the registry."""

    title: str
    paper: str
    """Address of the paper or course that it comes from."""
    factory: str
    """Called as factory(num_classes=, in_channels=, image_size=(H, W), **what the job sets)."""
    dropouts: tuple[float, ...]
    """Its default dropout rates in order; `model.dropout` sets the last one."""
    min_size: int = 1
    """The smallest height and width that it accepts."""
    input_shape: tuple[int, int, int] = RGB_32X32
    """(H, W, C) of the images it was designed for, used to count its parameters."""
    options: frozenset[str] = frozenset()
    """Fields of a ModelSpec that this network uses and most others do not."""

    @property
    def reads(self) -> frozenset[str]:
        """Fields of a ModelSpec, besides the name, that change this network."""
        several = {"dropouts"} if len(self.dropouts) > 1 else set()
        return frozenset({"dropout", "weights"} | several) | self.options


MODELS: dict[str, ModelEntry] = {
    "cnn3": ModelEntry(
        title="three convolutions and two dense layers",
        paper="https://cs231n.github.io/convolutional-networks/",
        factory="cifarray.models.cnn3:cnn3",
        dropouts=(0.1, 0.25, 0.5),
        min_size=8,
    ),
    "tflearn_cnn": ModelEntry(
        title="TFLearn's CIFAR example",
        paper="https://github.com/tflearn/tflearn/blob/master/examples/images/convnet_cifar10.py",
        factory="cifarray.models.tflearn_cnn:tflearn_cnn",
        dropouts=(0.5,),
    ),
    "cnn8": ModelEntry(
        title="four pairs of 3x3 convolutions with LeakyReLU",
        paper="https://arxiv.org/abs/1409.1556",
        factory="cifarray.models.cnn8:cnn8",
        dropouts=(0.25,),
        min_size=16,
    ),
    "alexnet32": ModelEntry(
        title="AlexNet for 32x32 images",
        paper="https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks",
        factory="cifarray.models.alexnet32:alexnet32",
        dropouts=(0.5, 0.5),
        min_size=15,
    ),
    "fashion_cnn": ModelEntry(
        title="eleven convolutions with BatchNorm and rising dropout",
        paper="https://arxiv.org/abs/1708.07747",
        factory="cifarray.models.fashion_cnn:fashion_cnn",
        dropouts=(0.1, 0.2, 0.25, 0.3, 0.6, 0.4),
        min_size=16,
        input_shape=(28, 28, 1),
    ),
    "bn_cnn_large": ModelEntry(
        title="eight convolutions and five dense layers with BatchNorm",
        paper="https://arxiv.org/abs/1502.03167",
        factory="cifarray.models.bn_cnn:bn_cnn_large",
        dropouts=(0.0,),
    ),
    "bn_cnn_small": ModelEntry(
        title="four convolutions and two dense layers with BatchNorm",
        paper="https://arxiv.org/abs/1502.03167",
        factory="cifarray.models.bn_cnn:bn_cnn_small",
        dropouts=(0.0,),
    ),
    "lenet25": ModelEntry(
        title="LeNet with ReLU and one hidden dense layer",
        paper="https://doi.org/10.1109/5.726791",
        factory="cifarray.models.lenet25:lenet25",
        dropouts=(0.0,),
        min_size=16,
    ),
    "lenet25_bn_after": ModelEntry(
        title="lenet25 with BatchNorm after ReLU",
        paper="https://doi.org/10.1109/5.726791",
        factory="cifarray.models.lenet25:lenet25_bn_after",
        dropouts=(0.0,),
        min_size=16,
    ),
    "lenet25_bn_before": ModelEntry(
        title="lenet25 with BatchNorm before ReLU",
        paper="https://doi.org/10.1109/5.726791",
        factory="cifarray.models.lenet25:lenet25_bn_before",
        dropouts=(0.0,),
        min_size=16,
    ),
    "lenet25_fc3": ModelEntry(
        title="lenet25 with one more dense layer",
        paper="https://doi.org/10.1109/5.726791",
        factory="cifarray.models.lenet25:lenet25_fc3",
        dropouts=(0.0,),
        min_size=16,
    ),
    "lenet25_optimized": ModelEntry(
        title="five 3x3 convolutions with BatchNorm, after LeNet",
        paper="https://doi.org/10.1109/5.726791",
        factory="cifarray.models.lenet25:lenet25_optimized",
        dropouts=(0.0,),
        min_size=20,
    ),
    "fast_cnn": ModelEntry(
        title="seven convolutions with BatchNorm, after airbench",
        paper="https://arxiv.org/abs/2404.00498",
        factory="cifarray.models.fast_cnn:fast_cnn",
        dropouts=(0.0,),
        min_size=9,
    ),
    "resnet18": ModelEntry(
        title="ResNet-18 with the CIFAR stem",
        paper="https://arxiv.org/abs/1512.03385",
        factory="cifarray.models.resnet:resnet18",
        dropouts=(0.0,),
    ),
    "resnet50": ModelEntry(
        title="ResNet-50 with the CIFAR stem",
        paper="https://arxiv.org/abs/1512.03385",
        factory="cifarray.models.resnet:resnet50",
        dropouts=(0.0,),
    ),
    "wide_resnet28_10": ModelEntry(
        title="WRN-28-10",
        paper="https://arxiv.org/abs/1605.07146",
        factory="cifarray.models.wide_resnet:wide_resnet28_10",
        dropouts=(0.0,),
    ),
}


BACKBONE = ModelEntry(
    title="any of timm's networks with a new head",
    paper="https://github.com/huggingface/pytorch-image-models",
    factory="cifarray.models.timm_classifier:timm_classifier",
    dropouts=(0.0,),
    options=HEAD_OPTIONS,
)
"""Of every `timm/<name>`."""


def find_entry(name: str) -> ModelEntry | None:
    """The entry of a network; None for a user-defined one, and for unknown names."""
    return BACKBONE if is_backbone(name) else MODELS.get(name)


def is_user_network(name: str) -> bool:
    """Whether the name is `package.module:factory`, a user-defined network."""
    return ":" in name


def check_model(
    spec: ModelSpec, shape: tuple[int, int, int] | None = None, code: Path | None = None
) -> None:
    """Refuse an unknown name, unused fields, a size of images that the network cannot take.

    `shape` is (H, W, C) of what the network sees, where known; `code` is what `--code` gave.
    A user-defined network is looked up as a file and not run. Torch is imported for `timm/`
    alone.

    Raises: JobError.
    """
    entry = find_entry(spec.name)
    if is_user_network(spec.name):
        check_factory(spec.name, code)
        _refuse_reserved(spec)
    elif entry is None:
        raise JobError(
            unknown_name("model", spec.name, MODELS)
            + f"; or give {PREFIX}<name> for one of timm's, or package.module:factory for your "
            "own network"
        )
    elif entry is BACKBONE:
        check_backbone(spec.name)
    _refuse_unread_fields(spec, USER_NETWORK_READS if entry is None else entry.reads)
    _check_pretrained(spec)
    if entry is None:
        return
    if spec.dropouts is not None and len(spec.dropouts) != len(entry.dropouts):
        raise JobError(
            f"model.dropouts of {spec.name} must be {len(entry.dropouts)} rates, as in "
            f"{list(entry.dropouts)}, not {list(spec.dropouts)}"
        )
    if shape is not None and entry is BACKBONE:
        check_size(spec.name, shape)
    elif shape is not None and min(shape[:2]) < entry.min_size:
        raise JobError(
            f"{spec.name} takes images of at least {entry.min_size}x{entry.min_size} pixels, not "
            f"{shape[0]}x{shape[1]}; choose another model, or set preprocess.resize"
        )


def build_model(
    spec: ModelSpec, num_classes: int, shape: tuple[int, int, int], code: Path | None = None
) -> nn.Module:
    """The network for images of `shape` (H, W, C), initialized from torch's current seed.

    `code` is the folder that holds a user-defined network, if it is not installed.

    Raises: JobError.
    """
    check_model(spec, shape, code)
    height, width, channels = shape
    options: dict[str, Any] = dict(spec.args)
    for field in ("dropout", "dropouts", "head"):
        if getattr(spec, field) is not None:
            options[field] = getattr(spec, field)
    entry = find_entry(spec.name)
    if entry is BACKBONE:
        options |= {"backbone": spec.name.removeprefix(PREFIX), "frozen": spec.frozen}
    factory = import_factory(entry.factory if entry else spec.name, None if entry else code)
    try:
        model = factory(
            num_classes=num_classes, in_channels=channels, image_size=(height, width), **options
        )
    except Exception as error:
        if not is_user_network(spec.name):
            raise
        raise JobError(f"{spec.name} failed to build a network: {in_one_line(error)}") from error
    if is_user_network(spec.name):
        check_network(spec.name, model, num_classes, shape)
    return model  # type: ignore[no-any-return]


def _refuse_reserved(spec: ModelSpec) -> None:
    reserved = {"num_classes", "in_channels", "image_size", "dropout", "dropouts"}
    if taken := sorted(reserved & spec.args.keys()):
        raise JobError(
            f"model.args may not contain {', '.join(taken)}: cifarray passes the first three "
            "from the dataset, and model.dropout or model.dropouts are fields of their own"
        )


def _refuse_unread_fields(spec: ModelSpec, reads: frozenset[str]) -> None:
    nothing = ModelSpec(name=spec.name)
    for field, value in spec:
        if field != "name" and field not in reads and value != getattr(nothing, field):
            used = ", ".join(f"model.{name}" for name in sorted(reads))
            raise JobError(f"model {spec.name} does not use model.{field}; it uses {used}")


def _check_pretrained(spec: ModelSpec) -> None:
    """Refuse weights that do not exist, and a head that would be trained on a random backbone."""
    if spec.weights == "timm":
        _check_published(spec.name)
    if spec.frozen and spec.weights == "none":
        raise JobError(
            f"model.frozen trains only the head of {spec.name}, but with model.weights none its "
            "backbone would stay random; set model.weights to timm, a file or run:ID"
        )
    if spec.features is not None and not spec.frozen:
        raise JobError(
            f"model.features {spec.features} computes the backbone's outputs once, so the "
            "backbone cannot be trained; set model.frozen=true as well"
        )


def _check_published(name: str) -> None:
    if not is_backbone(name):
        raise JobError(
            f"model.weights timm is for timm's networks, but {name} is not one of them; give a "
            "file, s3://bucket/file or run:ID"
        )
    config = published_config(name)
    if config is None or not config.has_weights:
        raise JobError(
            f"timm publishes no weights for {name}; give model.weights as a file or run:ID, or "
            "choose another network"
        )
