"""ZCA whitening: the matrix after which training images' pixels are uncorrelated, and near the old.

Zero-phase component analysis of "The Independent Components of Natural Scenes are Edge Filters",
https://doi.org/10.1016/S0042-6989(97)00121-1. Where U diag(s) U' is the covariance of the pixels,
scaled to 0 to 1, an image less the mean image is multiplied by U diag(1 / sqrt(s + epsilon)) U', as
in Keras' generators.

Sums of whole numbers are exact in whatever order they are added, so that any number of workers
comes to the same covariance.

Shapes: N images, P values of an image in the order channel, row, column.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_AT_ONCE = 1024
"""Products of pixels from -128 to 127, of so many rows, add up without rounding in float32."""
CENTRE = 128


@dataclass(frozen=True)
class Moments:
    """Sums over rows of pixels less CENTRE, in float64."""

    rows: Tensor
    sums_P: Tensor
    products_PP: Tensor


@dataclass(frozen=True)
class Spectrum:
    """The mean image, and the directions in which images vary, in float64 and on pixels 0 to 1."""

    mean_P: Tensor
    directions_PP: Tensor
    variances_P: Tensor

    def matrix(self, epsilon: float) -> Tensor:
        """The symmetric matrix that whitens, in float64."""
        scale_P = (self.variances_P + epsilon).rsqrt()
        return (self.directions_PP * scale_P) @ self.directions_PP.T


def moments(batches: Iterable[Tensor], values: int, device: torch.device) -> Moments:
    """The sums over batches of at most ROWS_AT_ONCE uint8 images of `values` pixels each."""
    rows = torch.zeros((), dtype=torch.float64, device=device)
    sums_P = torch.zeros(values, dtype=torch.float64, device=device)
    products_PP = torch.zeros(values, values, dtype=torch.float64, device=device)
    for images_NCHW in batches:
        pixels_NP = images_NCHW.flatten(1).float() - CENTRE
        rows += len(pixels_NP)
        sums_P += pixels_NP.sum(0)
        products_PP += pixels_NP.T @ pixels_NP
    return Moments(rows, sums_P, products_PP)


def spectrum(found: Moments) -> Spectrum:
    """The covariance's eigenvectors and eigenvalues."""
    mean_P = found.sums_P / found.rows
    covariance_PP = found.products_PP / found.rows - mean_P[:, None] * mean_P
    variances_P, directions_PP = torch.linalg.eigh(covariance_PP / 255**2)
    # Rounding leaves what does not vary at all a little below 0.
    return Spectrum((mean_P + CENTRE) / 255, directions_PP, variances_P.clamp(min=0.0))
