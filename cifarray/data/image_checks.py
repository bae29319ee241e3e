"""What augmentation and preprocessing ask for that images of a size cannot give; no torch."""

import math

from cifarray.errors import JobError
from cifarray.spec.images import AugmentSpec, PreprocessSpec

LARGEST_WHITENED = (64, 64, 3)
"""Height, width, channels; the matrix of such images holds 151 million numbers."""
Shape = tuple[int, int, int]


def held_shape(name: str, shape: Shape | None, preprocess: PreprocessSpec) -> Shape:
    """(H, W, C) of a dataset's images as workers hold them: as stored, or the squares asked for.

    Raises: JobError for images of different sizes, which are stored encoded, without a size.
    """
    if shape is not None:
        return shape
    if preprocess.resize is None:
        raise JobError(
            f"the images of {name} have different sizes; set preprocess.resize to the height and "
            "width that the network is to see, such as 224"
        )
    return preprocess.resize, preprocess.resize, 3


def check_images(augment: AugmentSpec, preprocess: PreprocessSpec, shape: Shape) -> None:
    """Refuse what images of `shape` (H, W, C) rule out, and fields that are not read.

    Raises: JobError.
    """
    _check_crop(augment, shape)
    _check_cutout(augment, shape)
    if augment.fill is not None and not augment.resampled:
        raise JobError(
            f"augment.fill {augment.fill} is for augment.rotation, shift and zoom, and the job has "
            "none of them; leave it out"
        )
    if preprocess.epsilon is not None and "epsilon" not in preprocess.reads:
        raise JobError(
            f"preprocess.normalize {preprocess.normalize} does not use preprocess.epsilon; leave "
            "it out, or set preprocess.normalize=whitening"
        )
    check_whitening(preprocess, shape)
    if preprocess.normalize == "imagenet" and shape[2] not in (1, 3):
        raise JobError(
            f"preprocess.normalize imagenet takes images of 1 or 3 channels, not {shape[2]}; set "
            "another one, such as standardize"
        )


def check_whitening(preprocess: PreprocessSpec, shape: Shape) -> None:
    """Refuse whitening of images whose matrix would be too large. Raises: JobError."""
    values = math.prod(shape)
    if preprocess.normalize == "whitening" and values > math.prod(LARGEST_WHITENED):
        size, largest = ("x".join(map(str, sizes)) for sizes in (shape, LARGEST_WHITENED))
        raise JobError(
            f"preprocess.normalize whitening of {size} images takes a matrix of {values} x "
            f"{values} numbers, and images of {largest} are the largest for it; set another one, "
            "such as standardize"
        )


def _check_crop(augment: AugmentSpec, shape: Shape) -> None:
    crop, side = augment.padded_crop, min(shape[:2])
    if crop is not None and crop.padding >= side:
        raise JobError(
            f"augment.padded_crop.padding {crop.padding} would leave nothing of some images of "
            f"{shape[0]}x{shape[1]} pixels; give at most {side - 1}"
        )


def _check_cutout(augment: AugmentSpec, shape: Shape) -> None:
    cutout, side = augment.cutout, max(shape[:2])
    if cutout is not None and cutout.size >= side:
        raise JobError(
            f"augment.cutout.size {cutout.size} would leave nothing of some images of "
            f"{shape[0]}x{shape[1]} pixels; give at most {side - 1}"
        )
