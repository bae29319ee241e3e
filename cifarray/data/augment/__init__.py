"""Random changes to whole batches of training images, by their names in a job's `augment`.

All of it runs on the device that holds the images, one operation for the batch, yet each image has
its own draw from the generator. Augmentation works on pixels as stored (uint8), before
normalization, so that padding is black and no float copy of an image is made twice.

Shapes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Generator, Tensor

from cifarray.data.augment.geometric import MOVES, Resampling
from cifarray.data.augment.mix import MIXINGS, Mix
from cifarray.data.augment.pixel import PIXEL_CHANGES
from cifarray.spec.augment import AugmentSpec

AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {**MOVES, **PIXEL_CHANGES}
"""Name in a job's `augment` -> function(images_NCHW, generator, **fields), in the order of use."""
FLIPS = frozenset({"horizontal_flip", "vertical_flip"})


class Augment:
    """The augmentations that a job turns on, ready to be called on a batch."""

    def __init__(self, spec: AugmentSpec) -> None:
        self.steps: list[tuple[Callable[..., Tensor], dict[str, Any]]] = []
        if spec.resampled:
            self.steps.append((Resampling(spec), {}))
        for name, fields in _given(spec, AUGMENTATIONS).items():
            if not (spec.resampled and name in FLIPS):
                self.steps.append((AUGMENTATIONS[name], fields))
        self.mixings = [(MIXINGS[name], f) for name, f in _given(spec, MIXINGS).items()]

    def __call__(self, images_NCHW: Tensor, generator: Generator) -> Tensor:
        """Changed images of the same shape and type; the given ones stay as they are."""
        for function, fields in self.steps:
            images_NCHW = function(images_NCHW, generator, **fields)
        return images_NCHW

    def mix(self, images_NCHW: Tensor, generator: Generator) -> tuple[Tensor, Mix | None]:
        """Images with others of the batch in them, where the job asks for that, and how much."""
        mix = None
        for function, fields in self.mixings:
            images_NCHW, mix = function(images_NCHW, generator, **fields)
        return images_NCHW, mix


def _given(spec: AugmentSpec, names: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """The fields of those of these augmentations that are on."""
    parts = {name: getattr(spec, name) for name in names}
    return {name: part.model_dump() for name, part in parts.items() if part is not None}
