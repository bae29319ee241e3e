"""Normalization: from stored pixels to the network's input, and the statistics for whitening.

Whitening is ZCA, the zero-phase component analysis of "The Independent Components of Natural Scenes
are Edge Filters", https://doi.org/10.1016/S0042-6989(97)00121-1: afterwards training images' pixels
are uncorrelated, and near the old ones. Where U diag(s) U' is the covariance of the pixels, scaled
to 0 to 1, an image less the mean image is multiplied by U diag(1 / sqrt(s + epsilon)) U', as in
Keras' generators.

Shapes: N images, C channels, H height, W width, P values of an image in the order channel, row,
column.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cifarray.errors import DatasetError
from cifarray.spec.augment import PreprocessSpec

ROWS_AT_ONCE = 1024
"""Products of pixels from -128 to 127, of this many rows, add up without rounding in float32."""
CENTER = 128


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
        """What was fitted, None if nothing is."""
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
                "division by 0 is impossible; set preprocess.normalize=unit"
            )
        return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    scale, shift = {"none": (1.0, 0.0), "signed": (2 / 255, -1.0)}.get(
        spec.normalize, (1 / 255, 0.0)
    )
    return [scale] * len(mean), [shift] * len(mean)


@dataclass(frozen=True)
class PixelSums:
    """Sums over rows of pixels less CENTER, in float64.

    Sums of whole numbers are exact in whatever order they are added, so that any number of workers
    comes to the same covariance.
    """

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


def pixel_sums(batches: Iterable[Tensor], values: int, device: torch.device) -> PixelSums:
    """The sums over batches of at most ROWS_AT_ONCE uint8 images of `values` pixels each."""
    rows = torch.zeros((), dtype=torch.float64, device=device)
    sums_P = torch.zeros(values, dtype=torch.float64, device=device)
    products_PP = torch.zeros(values, values, dtype=torch.float64, device=device)
    for images_NCHW in batches:
        pixels_NP = images_NCHW.flatten(1).float() - CENTER
        rows += len(pixels_NP)
        sums_P += pixels_NP.sum(0)
        products_PP += pixels_NP.T @ pixels_NP
    return PixelSums(rows, sums_P, products_PP)


def spectrum(found: PixelSums) -> Spectrum:
    """The covariance's eigenvectors and eigenvalues."""
    mean_P = found.sums_P / found.rows
    covariance_PP = found.products_PP / found.rows - mean_P[:, None] * mean_P
    variances_P, directions_PP = torch.linalg.eigh(covariance_PP / 255**2)
    # Rounding leaves what does not vary at all a little below 0.
    return Spectrum((mean_P + CENTER) / 255, directions_PP, variances_P.clamp(min=0.0))
