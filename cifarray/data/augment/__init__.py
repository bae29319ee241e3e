"""Random changes to whole batches of training images, and the normalisation that every image gets.

All of it runs on the device that holds the images, one operation for the batch, yet each image has
its own draw from the generator. Augmentation works on pixels as stored (uint8), before
normalisation, so that padding is black and no float copy of an image is made twice.

Flip and padded crop are those of "Deep Residual Learning for Image Recognition", section 4.2,
https://arxiv.org/abs/1512.03385. They move whole pixels; where a job rotates, shifts or zooms as
well, its flips become part of that one resampling.

Shapes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from cifarray.data.augment.geometric import Resampling, like_stored
from cifarray.data.augment.mix import MIXINGS, Mix
from cifarray.data.augment.pixel import cutout
from cifarray.errors import DatasetError
from cifarray.spec.images import AugmentSpec, PreprocessSpec


def horizontal_flip(images_NCHW: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror each image with probability `p`."""
    return _flip(images_NCHW, generator, p, dim=3)


def vertical_flip(images_NCHW: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Turn each image upside down with probability `p`."""
    return _flip(images_NCHW, generator, p, dim=2)


def _flip(images_NCHW: Tensor, generator: Generator, p: float, dim: int) -> Tensor:
    draws_N = torch.rand(len(images_NCHW), generator=generator, device=generator.device)
    flipped_N = (draws_N < p).to(images_NCHW.device, non_blocking=True)
    return torch.where(flipped_N[:, None, None, None], images_NCHW.flip(dim), images_NCHW)


def padded_crop(images_NCHW: Tensor, generator: Generator, padding: int = 4) -> Tensor:
    """Pad by `padding` zero pixels on each side, then cut the old size at each image's own place.

    A crop's row of W pixels lies in one piece in the padded batch, so that the whole batch is one
    selection of N * C * H such pieces.
    """
    n, c, h, w = images_NCHW.shape
    if n == 0:
        return images_NCHW
    device = images_NCHW.device
    places = 2 * padding + 1
    draws_2N = torch.randint(places, (2, n), generator=generator, device=generator.device)
    top_N, left_N = draws_2N.to(device, non_blocking=True)
    padded = nn.functional.pad(images_NCHW, (padding, padding, padding, padding)).contiguous()
    tall, wide = h + 2 * padding, w + 2 * padding
    planes_NC = torch.arange(n * c, device=device).view(n, c) * tall
    rows_NCH = (planes_NC + top_N[:, None])[:, :, None] + torch.arange(h, device=device)
    starts_NCH = rows_NCH * wide + left_N[:, None, None]
    pieces = padded.as_strided((padded.numel() - w + 1, w), (1, 1))
    return pieces.index_select(0, starts_NCH.flatten()).view(n, c, h, w)


def brightness(images_NCHW: Tensor, generator: Generator, fraction: float) -> Tensor:
    """Multiply each image by its own factor; what leaves the range of pixels is cut off."""
    draws_N = torch.rand(len(images_NCHW), generator=generator, device=generator.device)
    factors_N = (1 + (draws_N * 2 - 1) * fraction).to(images_NCHW.device, non_blocking=True)
    brighter_NCHW = images_NCHW * factors_N[:, None, None, None]
    return like_stored(brighter_NCHW, images_NCHW)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "horizontal_flip": horizontal_flip,
    "vertical_flip": vertical_flip,
    "padded_crop": padded_crop,
    "brightness": brightness,
    "cutout": cutout,
}
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


class Normalize(nn.Module):
    """Pixels 0 to 255 -> what the network sees, as the job's `preprocess` says.

    `mean` and `std` are per channel on the scale 0 to 1: those of train, or for `imagenet` those of
    the backbone, which has three of them and so makes three equal channels of gray images.
    `whitening` holds the `mean` image and the `matrix` that whitening multiplies by. The numbers
    are buffers outside the state dict, which move and change type with the module. Resizing comes
    last: whitening is of pixels as stored, and the rest, being the same for every pixel of a
    channel, gives the same before and after.
    """

    scale_C11: Tensor
    shift_C11: Tensor
    mean_P: Tensor
    matrix_PP: Tensor

    def __init__(
        self,
        spec: PreprocessSpec,
        mean: Sequence[float],
        std: Sequence[float],
        whitening: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        assert (whitening is not None) == (spec.normalize == "whitening")
        self.spec, self.mean, self.std = spec, list(mean), list(std)
        scale, shift = _scale_and_shift(spec, mean, std)
        self._hold("scale_C11", torch.tensor(scale)[:, None, None])
        self._hold("shift_C11", torch.tensor(shift)[:, None, None])
        if whitening is not None:
            self._hold("mean_P", whitening["mean"])
            self._hold("matrix_PP", whitening["matrix"])

    @property
    def whitening(self) -> dict[str, Tensor] | None:
        """What was fitted, None where nothing is."""
        whitens = self.spec.normalize == "whitening"
        return {"mean": self.mean_P, "matrix": self.matrix_PP} if whitens else None

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """images_NCHW in uint8 (or float, 0 to 255) -> a new float tensor."""
        return self._resized(self._normalized(images_NCHW))

    def _normalized(self, images_NCHW: Tensor) -> Tensor:
        if self.spec.normalize == "imagenet":
            images_NCHW = images_NCHW.expand(-1, len(self.mean), -1, -1)
        floats_NCHW = images_NCHW.to(self.scale_C11.dtype, copy=True)
        floats_NCHW = floats_NCHW.mul_(self.scale_C11).add_(self.shift_C11)
        if self.spec.normalize != "whitening":
            return floats_NCHW
        white_NP: Tensor = (floats_NCHW.flatten(1) - self.mean_P) @ self.matrix_PP
        return white_NP.view_as(floats_NCHW)

    def _resized(self, images_NCHW: Tensor) -> Tensor:
        """Bilinear; smaller images are means over what each pixel covers (antialias)."""
        side = self.spec.resize
        if side is None or images_NCHW.shape[2:] == (side, side):
            return images_NCHW
        return interpolate(images_NCHW, size=(side, side), mode="bilinear", antialias=True)

    def _hold(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)


def _scale_and_shift(
    spec: PreprocessSpec, mean: Sequence[float], std: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Per channel, what pixels are multiplied by and what is then added."""
    if spec.normalize in ("standardize", "imagenet"):
        if min(std) <= 0.0:
            raise DatasetError(
                f"the training images' standard deviations per channel are {list(std)}, and "
                "nothing can be divided by 0; set preprocess.normalize=unit"
            )
        return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    scale, shift = {"none": (1.0, 0.0), "signed": (2 / 255, -1.0)}.get(
        spec.normalize, (1 / 255, 0.0)
    )
    return [scale] * len(mean), [shift] * len(mean)
