"""A network's size and layers, found by passing one image through it.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarray.models.registry import MODELS, RGB_32X32, build_model, check_model
from cifarray.models.timm_backbone import is_backbone, native_shape
from cifarray.report.network import Block, Layer, Shape
from cifarray.spec.job import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
MOST_OF_IT = 0.5
"""A part with more than this share of the layers is not a block, but the network in a wrapper."""


def count_parameters(model: nn.Module) -> int:
    """Number of weights, trainable or not; running statistics are not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_buffers(model: nn.Module) -> int:
    """Number of running statistics (BatchNorm's counter of batches is not one)."""
    named = model.named_buffers()
    return sum(b.numel() for name, b in named if not name.endswith("num_batches_tracked"))


def describe_model(
    spec: ModelSpec, num_classes: int, code: Path | None = None, *, layers: bool = False
) -> dict[str, Any]:
    """Name, sizes and input shape of a network, built without memory for its weights.

    With `layers` a list of them as well, as the report has it.

    Built for the images that it was made for, and a user-defined one for 32x32 RGB ones.

    Raises: JobError.
    """
    check_model(spec, code=code)
    import torch

    shape = _made_for(spec.name)
    with torch.device("meta"):
        model = build_model(spec, num_classes, shape, code)
        height, width, channels = shape
        images_NCHW = torch.empty(1, channels, height, width)
        listed = [asdict(layer) for layer in summarize(model, images_NCHW)] if layers else []
    total = count_parameters(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "name": spec.name,
        "parameters": {"total": total, "trainable": trainable, "buffers": count_buffers(model)},
        "input_shape": list(shape),
        **({"layers": listed} if layers else {}),
    }


def _made_for(name: str) -> tuple[int, int, int]:
    if is_backbone(name):
        return native_shape(name)
    return MODELS[name].input_shape if name in MODELS else RGB_32X32


def summarize(model: nn.Module, images_NCHW: Tensor) -> list[Layer]:
    """The layers in the order in which images reach them; those that no image reaches come last.

    One of several calls of a layer counts, the first. The network does not change; on the meta
    device nothing is computed but shapes.
    """
    import torch

    shapes: dict[str, Shape | None] = {}
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _: object, output: object) -> None:
        shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None
        shapes.setdefault(names[module], shape)

    hooks = [module.register_forward_hook(note) for module in names]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images_NCHW)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    blocks = _blocks(model, shapes)
    order = [*shapes, *(name for name in names.values() if name not in shapes)]
    return list(_layers(model, order, shapes, blocks))


def _layers(
    model: nn.Module,
    order: list[str],
    shapes: dict[str, Shape | None],
    blocks: dict[str, Block],
) -> Iterator[Layer]:
    counted: set[int] = set()
    for name in order:
        module = model.get_submodule(name)
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted |= {id(parameter) for parameter in own}
        holds_others = any(module.children())
        if (holds_others and not own) or (name not in shapes and not own):
            continue
        yield Layer(
            name=name,
            kind=type(module).__name__,
            detail=_detail(module),
            output_shape=shapes.get(name),
            parameters=sum(parameter.numel() for parameter in own),
            trainable=sum(parameter.numel() for parameter in own if parameter.requires_grad),
            block=next((blocks[part] for part in _ways_to(name) if part in blocks), None),
        )


def _blocks(model: nn.Module, shapes: dict[str, Shape | None]) -> dict[str, Block]:
    """Parts that are more than containers, and less than most of the network."""
    leaves = [name for name, module in model.named_modules() if not any(module.children())]
    found = {}
    for name, module in model.named_modules():
        inside = sum(leaf.startswith(f"{name}.") for leaf in leaves)
        is_part = bool(name) and 1 < inside <= MOST_OF_IT * len(leaves)
        if is_part and type(module).__name__ not in CONTAINERS:
            found[name] = Block(name, type(module).__name__, shapes.get(name))
    return found


def _ways_to(name: str) -> Iterator[str]:
    """'a.b.c' -> 'a', 'a.b': the parts around it, the outermost first."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        yield ".".join(parts[:count])


def _detail(module: nn.Module) -> str:
    """Kernel and stride, rate, slope: what the class alone does not say."""
    words = []
    kernel, stride = getattr(module, "kernel_size", None), getattr(module, "stride", None)
    if kernel is not None:
        words.append(_pair(kernel))
        usual = _pair(kernel) if "Pool" in type(module).__name__ else "1x1"
        if _pair(stride) not in ("1x1", usual):
            words.append(f"stride {stride[0] if isinstance(stride, tuple) else stride}")
    groups = getattr(module, "groups", 1)
    if isinstance(groups, int) and groups > 1:
        depthwise = groups == getattr(module, "in_channels", None)
        words.append("depthwise" if depthwise else f"{groups} groups")
    rate = getattr(module, "p", None)
    if isinstance(rate, float):
        words.append(f"p {rate:g}")
    return ", ".join(words)


def _pair(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else f"{value}x{value}"
