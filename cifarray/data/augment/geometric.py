"""Augmentations that move pixels: flips, padded crop, rotation, shift and zoom.

Flip and padded crop are those of "Deep Residual Learning for Image Recognition", section 4.2,
https://arxiv.org/abs/1512.03385. They move whole pixels; where a job rotates, shifts or zooms as
well, its flips become part of one resampling, so that pixels are read once. Its draws and their
order are those of Keras' ImageDataGenerator, https://keras.io/api/data_loading/image: an output
pixel's place is flipped, zoomed, shifted and turned about the image's center, and what lies there
is read by bilinear interpolation; here for a whole batch at once.

Shapes: N images, C channels, H height, W width; a transform maps (x, y, 1) of the output to the
input, in pixels from the center, x to the right and y down.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from cifarray.data.augment.pixel import like_stored
from cifarray.spec.augment import AugmentSpec

PADDING = {"nearest": "border", "zeros": "zeros"}
"""`augment.fill` -> what torch calls it."""


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


class Resampling:
    """The geometric changes that a job turns on, as one reading of the pixels."""

    def __init__(self, spec: AugmentSpec) -> None:
        self.spec = spec

    def __call__(self, images_NCHW: Tensor, generator: Generator) -> Tensor:
        """Changed images of the same shape and type."""
        n, _, h, w = images_NCHW.shape
        transforms_N33 = draw_transforms(self.spec, n, (h, w), generator)
        return resample(images_NCHW, transforms_N33, self.spec.fill or "nearest")


def draw_transforms(
    spec: AugmentSpec, n: int, size: tuple[int, int], generator: Generator
) -> Tensor:
    """A transform for each of `n` images of this (height, width), on the generator's device."""
    (h, w), device = size, generator.device

    def uniform(limit: float, count: int = 1) -> Tensor:
        """`count` rows of n draws from -limit to limit."""
        draws = torch.rand((count, n), generator=generator, device=device)
        return (draws * 2 - 1) * limit

    transforms_N33 = torch.eye(3, device=device).repeat(n, 1, 1)
    if spec.rotation is not None:
        (angles_N,) = uniform(math.radians(spec.rotation.degrees))
        transforms_N33 = transforms_N33 @ rotation(angles_N)
    if spec.shift is not None:
        x_N, y_N = uniform(spec.shift.fraction, 2)
        transforms_N33 = transforms_N33 @ shift(x_N * w, y_N * h)
    if spec.zoom is not None:
        x_N, y_N = 1 + uniform(spec.zoom.fraction, 2)
        transforms_N33 = transforms_N33 @ scaling(x_N, y_N)
    flips = (spec.horizontal_flip, spec.vertical_flip)
    if any(flips):
        draws_2N = torch.rand((2, n), generator=generator, device=device)
        x_N, y_N = (
            torch.where(draws_N < (flip.p if flip else 0.0), -1.0, 1.0)
            for flip, draws_N in zip(flips, draws_2N, strict=True)
        )
        transforms_N33 = transforms_N33 @ scaling(x_N, y_N)
    return transforms_N33


def rotation(angles_N: Tensor) -> Tensor:
    """Transforms that turn images counterclockwise by these radians."""
    transforms_N33 = torch.eye(3, device=angles_N.device).repeat(len(angles_N), 1, 1)
    cosines_N, sines_N = angles_N.cos(), angles_N.sin()
    transforms_N33[:, 0, 0] = transforms_N33[:, 1, 1] = cosines_N
    transforms_N33[:, 0, 1], transforms_N33[:, 1, 0] = -sines_N, sines_N
    return transforms_N33


def shift(x_N: Tensor, y_N: Tensor) -> Tensor:
    """Transforms that read this many pixels further to the right and down."""
    transforms_N33 = torch.eye(3, device=x_N.device).repeat(len(x_N), 1, 1)
    transforms_N33[:, 0, 2], transforms_N33[:, 1, 2] = x_N, y_N
    return transforms_N33


def scaling(x_N: Tensor, y_N: Tensor) -> Tensor:
    """Transforms that read this many times as far from the center: below 1 enlarges, -1 mirrors."""
    return torch.diag_embed(torch.stack([x_N, y_N, torch.ones_like(x_N)], dim=1))


def resample(images_NCHW: Tensor, transforms_N33: Tensor, fill: str) -> Tensor:
    """Read images through transforms; uint8 ones are rounded to whole numbers again."""
    n, c, h, w = images_NCHW.shape
    if n == 0:
        return images_NCHW
    # torch counts places from -1 to 1 over the image, whose sides may differ.
    theta_N23 = transforms_N33[:, :2].to(images_NCHW.device, copy=True)
    theta_N23[:, 0, 1] *= h / w
    theta_N23[:, 1, 0] *= w / h
    theta_N23[:, 0, 2] *= 2 / w
    theta_N23[:, 1, 2] *= 2 / h
    floats_NCHW = images_NCHW if images_NCHW.is_floating_point() else images_NCHW.float()
    grid = affine_grid(theta_N23.to(floats_NCHW.dtype), [n, c, h, w], align_corners=False)
    moved_NCHW = grid_sample(
        floats_NCHW, grid, mode="bilinear", padding_mode=PADDING[fill], align_corners=False
    )
    return like_stored(moved_NCHW, images_NCHW)


MOVES = {
    "horizontal_flip": horizontal_flip,
    "vertical_flip": vertical_flip,
    "padded_crop": padded_crop,
}
"""Name in a job's `augment` -> function(images_NCHW, generator, **fields), in the order of use."""
