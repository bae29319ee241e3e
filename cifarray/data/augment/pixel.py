"""Boxes at drawn places of images, and cutout, which blackens one.

Cutout is that of "Improved Regularization of Convolutional Neural Networks with Cutout",
https://arxiv.org/abs/1708.04552; there boxes are 0 after normalisation, here before it, like the
edges of a padded crop.

Shapes: N images, C channels, H height, W width.
"""

import torch
from torch import Generator, Tensor


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
        centre_N = torch.randint(length, (n,), generator=generator, device=generator.device)
        first_N1 = (centre_N.to(device, non_blocking=True) - side_N // 2)[:, None]
        places = torch.arange(length, device=device)
        inside.append((places >= first_N1) & (places < first_N1 + side_N[:, None]))
    rows_NH, columns_NW = inside
    return (rows_NH[:, :, None] & columns_NW[:, None, :])[:, None]
