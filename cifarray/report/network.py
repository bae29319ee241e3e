"""A network as a list of layers, and its picture as in papers: a row of boxes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cifarray.report import formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Shape = tuple[int, ...]

WIDTH = 1000
"""CSS pixels; the page is that wide."""
PER_ROW = 11
ROW_HEIGHT = 168
HIGHEST, THICKEST = 84.0, 34.0
"""CSS pixels of a map as large as the network's first, and of the most channels."""
MOST_SOLIDS = 66
LEAN = 0.34
"""How far a solid leans to the right, as a share of its height: its maps are seen from the side."""
COLORS_BY_KIND = {
    "input": "line",
    "convolution": "accent",
    "pooling": "quiet",
    "dense": "good",
    "block": "cat-0",
    "other": "cat-7",
}
GROUND = 62
"""CSS pixels between a row's lower end and its solids, where the words stand."""


@dataclass(frozen=True)
class Block:
    """The part of a network, such as a residual block, that a layer belongs to."""

    name: str
    kind: str
    output_shape: Shape | None


@dataclass(frozen=True)
class Layer:
    """A layer without sublayers, or one with its own weights."""

    name: str
    """Its place in the network, as in its weights' names."""
    kind: str
    """Its class."""
    detail: str
    """What makes it differ from others of its kind, such as '3x3, stride 2'."""
    output_shape: Shape | None
    """Of one image, as a rule (channels, height, width); None if no image passes through."""
    parameters: int
    """A weight that several layers share counts for the first."""
    trainable: int
    """Those of the parameters that training changes."""
    block: Block | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Layer":
        """Read a layer as a run keeps it."""
        block = values.get("block")
        return cls(
            name=str(values["name"]),
            kind=str(values["kind"]),
            detail=str(values["detail"]),
            output_shape=_shape(values["output_shape"]),
            parameters=int(values["parameters"]),
            trainable=int(values["trainable"]),
            block=block
            and Block(str(block["name"]), str(block["kind"]), _shape(block["output_shape"])),
        )

    @property
    def learns(self) -> str:
        """Whether training changes it, in a word; empty without parameters."""
        if not self.parameters:
            return ""
        return {0: "no", self.parameters: "yes"}.get(self.trainable, "in part")


def totals(layers: Sequence[Layer]) -> tuple[int, int]:
    """(parameters, those of them that training changes) of all layers."""
    return sum(layer.parameters for layer in layers), sum(layer.trainable for layer in layers)


def shape_text(shape: Shape | None) -> str:
    """(64, 32, 32) -> '64x32x32'; empty for None."""
    return "x".join(map(str, shape or ()))


def _shape(values: Any) -> Shape | None:
    return None if values is None else tuple(int(value) for value in values)


@dataclass(frozen=True)
class Solid:
    """A layer, or several equal ones, or a block of them."""

    kind: str
    title: str
    shape: Shape
    note: str = ""
    count: int = 1

    @property
    def words(self) -> tuple[str, ...]:
        """The text below it, one line each."""
        times = f"{self.count} × " if self.count > 1 else ""
        channels, *sides = self.shape
        maps = f"{channels}, {'×'.join(map(str, sides))}" if sides else f"{channels}"
        return tuple(text for text in (times + self.title, self.note, maps) if text)


def solids(layers: Sequence[Layer], image: Shape) -> list[Solid]:
    """What is drawn: every convolution, pooling and dense layer; blocks and equal layers as one.

    `image` is the input's (channels, height, width).
    """
    found = [Solid("input", "image", image)]
    for _, group in groupby(layers, key=lambda layer: layer.block):
        inside = list(group)
        drawn = [layer for layer in inside if _kind(layer) is not None]
        block = inside[0].block
        if block is not None and block.output_shape and len(drawn) > 1:
            title = formats.shortened(block.kind, 13)
            found.append(Solid("block", title, block.output_shape, _kernels(drawn)))
        else:
            found += [solid for layer in drawn if (solid := _solid(layer))]
    return list(_merged(found))


def paint_network(
    figure: "Figure", drawn: Sequence[Solid], colors: Mapping[str, str]
) -> dict[str, list[str]]:
    """Fill a figure of `network_size`; there are no hover texts."""
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    width, height = network_size(drawn)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    side = max((max(solid.shape[1:]) for solid in drawn if len(solid.shape) > 1), default=1)
    slot = WIDTH / PER_ROW
    for number, solid in enumerate(drawn[:MOST_SOLIDS]):
        row, column = divmod(number, PER_ROW)
        left, ground = column * slot, height - (row + 1) * ROW_HEIGHT + GROUND
        _draw(axes, solid, side, (left + slot / 2, ground), colors)
        if number + 1 < len(drawn):
            axes.text(
                left + slot - 3, ground + HIGHEST / 2, "→", color=colors["muted"], ha="center"
            )
    if len(drawn) > MOST_SOLIDS:
        left_out = f"and {len(drawn) - MOST_SOLIDS} more"
        axes.text(width - 8, 6, left_out, color=colors["muted"], ha="right", fontsize=10)
    return {}


def network_size(drawn: Sequence[Solid]) -> tuple[int, int]:
    """CSS pixels of the picture."""
    return WIDTH, ROW_HEIGHT * math.ceil(min(len(drawn), MOST_SOLIDS) / PER_ROW)


def _draw(
    axes: "Axes", solid: Solid, side: int, place: tuple[float, float], colors: Mapping[str, str]
) -> None:
    """A solid around `place`, the middle of its lower edge, and its words below."""
    from matplotlib.patches import Polygon  # `cifarray models` lists layers without matplotlib

    middle, ground = place
    channels, *sides = solid.shape
    is_map = bool(sides) and max(sides) > 1
    tall = HIGHEST * (math.sqrt(max(sides) / side) if is_map else min(1.0, _depth(channels)))
    thick = THICKEST * min(1.0, _depth(channels)) if is_map else 7.0
    lean = LEAN * tall if is_map else 0.0
    left, right = middle - (thick + lean) / 2, middle + (thick - lean) / 2
    rise = 0.6 * lean
    tall = tall - rise
    faces = (
        (1.0, ((left, 0), (right, 0), (right, tall), (left, tall))),
        (0.75, ((right, 0), (right + lean, rise), (right + lean, tall + rise), (right, tall))),
        (
            0.5,
            ((left, tall), (right, tall), (right + lean, tall + rise), (left + lean, tall + rise)),
        ),
    )
    color = colors[COLORS_BY_KIND[solid.kind]]
    for strength, corners in faces if is_map else faces[:1]:
        axes.add_patch(
            Polygon(
                [(x, ground + y) for x, y in corners],
                facecolor=color,
                alpha=strength,
                edgecolor=colors["paper"],
                linewidth=0.8,
            )
        )
    for line, text in enumerate(solid.words):
        is_title = line == 0
        axes.text(
            middle,
            ground - 16 - 15 * line,
            text,
            ha="center",
            fontsize=10.5 if is_title else 9.5,
            color=colors["ink" if is_title else "muted"],
        )


def _depth(channels: int) -> float:
    """1 channel -> 0.1, 512 and more -> about 1: as thick as the logarithm."""
    return 0.1 + 0.1 * math.log2(max(1, channels))


def _solid(layer: Layer) -> Solid | None:
    kind = _kind(layer)
    if kind is None or not layer.output_shape:
        return None
    words = {"convolution": "conv", "dense": "dense", "pooling": "pool"}
    size, _, rest = layer.detail.partition(", ")
    note = rest if kind == "convolution" else ""
    title = f"{words.get(kind, formats.shortened(layer.kind, 13))} {size}".strip()
    return Solid(kind, title.replace("x", "×"), layer.output_shape, note)


def _kind(layer: Layer) -> str | None:
    """What a layer is drawn as; None for one that a picture leaves out, such as ReLU."""
    for kind, part in (("convolution", "Conv"), ("pooling", "Pool"), ("dense", "Linear")):
        if part in layer.kind:
            return kind
    return "other" if layer.parameters and "Norm" not in layer.kind else None


def _kernels(layers: Sequence[Layer]) -> str:
    """The kernels of a block's convolutions, without those of its shortcut: '1×1, 3×3, 1×1'."""
    inside = [layer for layer in layers if "Conv" in layer.kind]
    kept = [layer for layer in inside if not {"shortcut", "downsample"} & {*layer.name.split(".")}]
    kernels = [layer.detail.partition(",")[0].replace("x", "×") for layer in kept]
    return ", ".join(kernels) if len(kernels) <= 3 else f"{len(kernels)} conv"


def _merged(found: Sequence[Solid]) -> Iterator[Solid]:
    """Equal ones that follow each other become one."""
    for solid, group in groupby(found):
        yield replace(solid, count=len(list(group)))
