"""Random changes to whole batches of training images, and the normalisation that every image gets.

All of it runs on the device that holds the images, one operation for the batch, yet each image has
its own draw from the generator. Augmentation works on pixels as stored (uint8), before
normalisation, so that padding is black and no float copy of an image is made twice.

Flip and padded crop are those of "Deep Residual Learning for Image Recognition", section 4.2,
https://arxiv.org/abs/1512.03385.

Shapes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from cifarray.errors import DatasetError
from cifarray.spec.job import AugmentSpec, PreprocessSpec
from cifarray.spec.record import Record


def horizontal_flip(images_NCHW: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror each image with probability `p`."""
    draws_N = torch.rand(len(images_NCHW), generator=generator, device=generator.device)
    flipped_N = (draws_N < p).to(images_NCHW.device, non_blocking=True)
    return torch.where(flipped_N[:, None, None, None], images_NCHW.flip(3), images_NCHW)


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


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "horizontal_flip": horizontal_flip,
    "padded_crop": padded_crop,
}
"""Name in a job's `augment` -> function(images_NCHW, generator, **fields), in the order of use."""


class Augment:
    """The augmentations that a job turns on, ready to be called on a batch."""

    def __init__(self, spec: AugmentSpec) -> None:
        settings: dict[str, Record | None] = {name: getattr(spec, name) for name in AUGMENTATIONS}
        self.steps = [
            (AUGMENTATIONS[name], given.model_dump())
            for name, given in settings.items()
            if given is not None
        ]

    def __call__(self, images_NCHW: Tensor, generator: Generator) -> Tensor:
        """Changed images of the same shape and type; the given ones stay as they are."""
        for function, fields in self.steps:
            images_NCHW = function(images_NCHW, generator, **fields)
        return images_NCHW


class Normalize(nn.Module):
    """Pixels 0 to 255 -> floats: standardised by channel mean and std, in [0, 1], or as stored.

    `mean` and `std` are per channel on the scale 0 to 1. The numbers are buffers outside the state
    dict, which move and change type with the module.
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, spec: PreprocessSpec, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale, shift = [1 / 255] * len(mean), [0.0] * len(mean)
        if spec.normalize == "none":
            scale = [1.0] * len(mean)
        elif spec.normalize == "standardize":
            if min(std) <= 0.0:
                raise DatasetError(
                    f"the training images' standard deviations per channel are {list(std)}, and "
                    "nothing can be divided by 0; set preprocess.normalize=unit"
                )
            scale = [1 / (255 * s) for s in std]
            shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("scale_C11", torch.tensor(scale)[:, None, None], persistent=False)
        self.register_buffer("shift_C11", torch.tensor(shift)[:, None, None], persistent=False)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """images_NCHW in uint8 (or float, 0 to 255) -> a new float tensor."""
        floats_NCHW = images_NCHW.to(self.scale_C11.dtype, copy=True)
        return floats_NCHW.mul_(self.scale_C11).add_(self.shift_C11)
