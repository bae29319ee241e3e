"""A network as a list of layers, as the command line, the report and its picture show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """The part of a network, such as a residual block, that a layer belongs to."""

    name: str
    kind: str
    output_shape: Shape | None


@dataclass(frozen=True)
class Layer:
    """A layer that holds no others, or one with weights of its own."""

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


def size(shape: Shape | None) -> str:
    """(64, 32, 32) -> '64x32x32'; empty for None."""
    return "x".join(map(str, shape or ()))


def _shape(values: Any) -> Shape | None:
    return None if values is None else tuple(int(value) for value in values)
