"""Augmentations that mix a second image of the batch into each image, by a share.

Mixup is that of "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412, and
cutmix that of "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
Features", https://arxiv.org/abs/1905.04899. Both draw one share for a batch there; here every image
has its own.

Shapes: N images, C channels, H height, W width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cifarray.data.augment.pixel import draw_boxes, like_stored


@dataclass(frozen=True)
class Mix:
    """Of which two images of a batch each has become."""

    partners_N: Tensor
    """Place in the batch of each image's second one; it may be its own."""
    shares_N: Tensor
    """How much of each is still itself, 0 to 1, in float64."""


def mixup(images_NCHW: Tensor, generator: Generator, alpha: float = 1.0) -> tuple[Tensor, Mix]:
    """Blend each image with another one."""
    mix = _draw(images_NCHW, generator, alpha)
    shares_N111 = mix.shares_N[:, None, None, None].float()
    mixed_NCHW = images_NCHW * shares_N111 + images_NCHW[mix.partners_N] * (1 - shares_N111)
    return like_stored(mixed_NCHW, images_NCHW), mix


def cutmix(images_NCHW: Tensor, generator: Generator, alpha: float = 1.0) -> tuple[Tensor, Mix]:
    """Put a box of another image into each; the shares are those of the pixels."""
    mix = _draw(images_NCHW, generator, alpha)
    h, w = images_NCHW.shape[2:]
    side_N = (1 - mix.shares_N).sqrt()
    boxes_N1HW = draw_boxes(images_NCHW, (side_N * h).long(), (side_N * w).long(), generator)
    mixed_NCHW = torch.where(boxes_N1HW, images_NCHW[mix.partners_N], images_NCHW)
    return mixed_NCHW, Mix(mix.partners_N, 1 - boxes_N1HW.double().mean((1, 2, 3)))


MIXINGS: dict[str, Callable[..., tuple[Tensor, Mix]]] = {"mixup": mixup, "cutmix": cutmix}
"""Name in a job's `augment` -> function(images_NCHW, generator, **fields)."""


def symmetric_beta(n: int, alpha: float, generator: Generator) -> Tensor:
    """`n` draws from Beta(alpha, alpha) in float64, from two uniform numbers each.

    Bailey's polar method gives Student's t with 2 * alpha degrees of freedom
    (https://doi.org/10.1090/S0025-5718-1994-1195425-2), and (1 + t / sqrt(2 * alpha + t^2)) / 2 is
    Beta(alpha, alpha). torch's own sampler takes no generator.
    """
    u_N, v_N = torch.rand((2, n), generator=generator, device=generator.device, dtype=torch.float64)
    cosine_N = (2 * math.pi * v_N).cos()
    square_N = (u_N.pow(-1 / alpha) - 1) * cosine_N.square()  # t^2 / (2 * alpha); may be infinite
    beta_N: Tensor = (1 + cosine_N.sign() / (1 + 1 / square_N).sqrt()) / 2
    return beta_N


def _draw(images_NCHW: Tensor, generator: Generator, alpha: float) -> Mix:
    n, device = len(images_NCHW), images_NCHW.device
    partners_N = torch.randperm(n, generator=generator, device=generator.device)
    shares_N = symmetric_beta(n, alpha, generator)
    return Mix(partners_N.to(device), shares_N.to(device))
