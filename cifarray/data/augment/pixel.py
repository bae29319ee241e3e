"""Augmentations that change pixels in place: brightness, and cutout, which blackens a box.

Cutout is that of "Improved Regularization of Convolutional Neural Networks with Cutout",
https://arxiv.org/abs/1708.04552; there boxes are 0 after normalization, here before it, like the
edges of a padded crop.

Shapes: N images, C channels, H height, W width.
"""

import torch
from torch import Generator, Tensor


def brightness(images_NCHW: Tensor, generator: Generator, fraction: float) -> Tensor:
    """Multiply each image by its own factor; what leaves the range of pixels is cut off."""
    draws_N = torch.rand(len(images_NCHW), generator=generator, device=generator.device)
    factors_N = (1 + (draws_N * 2 - 1) * fraction).to(images_NCHW.device, non_blocking=True)
    brighter_NCHW = images_NCHW * factors_N[:, None, None, None]
    return like_stored(brighter_NCHW, images_NCHW)


def cutout(images_NCHW: Tensor, generator: Generator, size: int) -> Tensor:
    """Blacken a square of each image, about a random pixel of it."""
    sides_N = torch.full((len(images_NCHW),), size, device=images_NCHW.device)
    return images_NCHW.masked_fill(draw_boxes(images_NCHW, sides_N, sides_N, generator), 0)


def draw_boxes(
    images_NCHW: Tensor, height_N: Tensor, width_N: Tensor, generator: Generator
) -> Tensor:
    """True inside a box of each image, about a pixel that is drawn; edges cut what lies beyond."""
    n, _, *size = images_NCHW.shape
    device = images_NCHW.device
    inside = []
    for length, side_N in zip(size, (height_N, width_N), strict=True):
        center_N = torch.randint(length, (n,), generator=generator, device=generator.device)
        first_N1 = (center_N.to(device, non_blocking=True) - side_N // 2)[:, None]
        places = torch.arange(length, device=device)
        inside.append((places >= first_N1) & (places < first_N1 + side_N[:, None]))
    rows_NH, columns_NW = inside
    return (rows_NH[:, :, None] & columns_NW[:, None, :])[:, None]


def like_stored(changed_NCHW: Tensor, images_NCHW: Tensor) -> Tensor:
    """Floats as the images were stored: as they are, or as the nearest numbers from 0 to 255."""
    if images_NCHW.is_floating_point():
        return changed_NCHW
    return changed_NCHW.round_().clamp_(0, 255).to(images_NCHW.dtype)


PIXEL_CHANGES = {"brightness": brightness, "cutout": cutout}
"""Name in a job's `augment` -> function(images_NCHW, generator, **fields), in the order of use."""
