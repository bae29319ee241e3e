"""A job's settings for images: augmentation in training, and preprocessing."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cifarray.errors import JobError
from cifarray.spec.record import Record

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "simple": {"preprocess": {"normalize": "unit"}},
    "complex": {
        "augment": {"horizontal_flip": {}, "vertical_flip": {}, "zoom": {"fraction": 0.2}},
        "preprocess": {"normalize": "standardize"},
    },
    "whitening": {"preprocess": {"normalize": "whitening", "epsilon": 1e-6}},
    "backbone": {"preprocess": {"normalize": "imagenet"}},
}
"""The image generators of the published recipes, in fields of this job; the epsilon is Keras' own.

For `simple` the report gives only the name: here pixels are scaled to [0, 1] and not augmented.
"""
LARGEST_WHITENED = (64, 64, 3)
"""Height, width, channels; the matrix of such images holds 151 million numbers."""
Shape = tuple[int, int, int]


class FlipSpec(Record):
    """Mirror an image with probability `p`."""

    p: float = Field(default=0.5, ge=0.0, le=1.0)


class PaddedCropSpec(Record):
    """Pad by `padding` zero pixels on each side, then cut the old size at a random place."""

    padding: int = Field(default=4, ge=1)


class RotationSpec(Record):
    """Turn an image about its center, by up to `degrees` either way."""

    degrees: float = Field(ge=0.0, le=180.0)


class ShiftSpec(Record):
    """Move an image by up to `fraction` of its width and of its height, either way."""

    fraction: float = Field(ge=0.0, lt=1.0)


class ZoomSpec(Record):
    """Stretch width and height, each by its own factor from 1 - `fraction` to 1 + `fraction`."""

    fraction: float = Field(ge=0.0, lt=1.0)


class BrightnessSpec(Record):
    """Multiply an image's pixels by a factor from 1 - `fraction` to 1 + `fraction`."""

    fraction: float = Field(ge=0.0, le=1.0)


class CutoutSpec(Record):
    """Blacken a square of `size` pixels a side about a random pixel; it may reach beyond edges."""

    size: int = Field(ge=1)


class MixupSpec(Record):
    """Blend an image with another of its batch, in shares drawn from Beta(alpha, alpha)."""

    alpha: float = Field(default=1.0, gt=0.0)


class CutmixSpec(Record):
    """Replace a box of an image by another's; its share is drawn from Beta(alpha, alpha)."""

    alpha: float = Field(default=1.0, gt=0.0)


class AugmentSpec(Record):
    """Random changes to training images, each image with its own draw; absent ones are off."""

    preset: Literal["simple", "complex", "whitening", "backbone"] | None = Field(
        default=None, exclude=True
    )
    """Stands for fields of `augment` and `preprocess`, which a job's record contains instead."""
    horizontal_flip: FlipSpec | None = None
    vertical_flip: FlipSpec | None = None
    padded_crop: PaddedCropSpec | None = None
    rotation: RotationSpec | None = None
    shift: ShiftSpec | None = None
    zoom: ZoomSpec | None = None
    fill: Literal["nearest", "zeros"] | None = None
    """What rotation, shift and zoom put where an image leaves a gap: its nearest pixel, as Keras'
    generators do (and as None does), or black, as TFLearn's rotation does."""
    brightness: BrightnessSpec | None = None
    cutout: CutoutSpec | None = None
    mixup: MixupSpec | None = None
    cutmix: CutmixSpec | None = None

    @model_validator(mode="after")
    def _a_label_is_mixed_of_two(self) -> Self:
        if self.mixup is not None and self.cutmix is not None:
            raise ValueError("give mixup or cutmix, not both")
        return self

    @property
    def resampled(self) -> bool:
        """Whether images are resampled between their pixels."""
        return any(part is not None for part in (self.rotation, self.shift, self.zoom))

    @property
    def reads(self) -> frozenset[str]:
        """The fields that change something beside the others."""
        return frozenset(type(self).model_fields) - (set() if self.resampled else {"fill"})


class PreprocessSpec(Record):
    """Preprocessing of pixels before the network, the same in training and in prediction."""

    normalize: Literal["whitening", "imagenet", "signed", "standardize", "unit", "none"] = (
        "standardize"
    )
    """none: 0 to 255 as stored; unit: to [0, 1]; signed: to [-1, 1]; standardize: train's channel
    mean and std; imagenet: those that the network's ImageNet weights were trained with, gray images
    as three equal channels; whitening: ZCA, fitted on the rows that are trained on."""
    epsilon: float | None = Field(default=None, gt=0.0)
    """`whitening`: added to each variance, of pixels from 0 to 1, before its root divides."""
    resize: int | None = Field(default=None, ge=8, le=1024)
    """Height and width that the network sees; None: those that images are stored in."""

    @model_validator(mode="after")
    def _whitening_states_its_epsilon(self) -> Self:
        if self.normalize == "whitening" and self.epsilon is None:
            raise ValueError(
                "whitening requires preprocess.epsilon, which is added to each variance; "
                "Keras' generators take 1e-6"
            )
        return self

    @property
    def reads(self) -> frozenset[str]:
        """The fields that change something beside the others."""
        whitens = self.normalize == "whitening"
        return frozenset({"normalize", "resize"} | ({"epsilon"} if whitens else set()))

    def seen(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(H, W, C) of what the network sees of images of `shape` (H, W, C)."""
        height, width, channels = shape
        if self.resize is not None:
            height = width = self.resize
        return height, width, 3 if self.normalize == "imagenet" else channels


def without_preset(job: dict[str, Any]) -> dict[str, Any]:
    """A job's values with the fields of `augment.preset` in its place; those given beside it stay.

    Raises: ValueError for a preset beside another way to normalize.
    """
    augment, preprocess = _given(job.get("augment", {})), _given(job.get("preprocess", {}))
    preset = (augment or {}).pop("preset", None)
    known = isinstance(preset, str) and preset in PRESETS
    if augment is None or preprocess is None or not known:
        return job  # without a preset, or with what the record will refuse
    fields = PRESETS[preset]
    meant = fields["preprocess"]["normalize"]
    if preprocess.get("normalize", meant) != meant:
        raise ValueError(
            f"augment.preset {preset} means preprocess.normalize {meant}, not "
            f"{preprocess['normalize']}; leave one of the two out"
        )
    return job | {
        "augment": {**fields.get("augment", {}), **augment},
        "preprocess": {**fields["preprocess"], **preprocess},
    }


def _given(section: Any) -> dict[str, Any] | None:
    """What somebody set in a section, a mapping or a record already; None if it is neither."""
    if isinstance(section, Record):
        return {name: getattr(section, name) for name in section.model_fields_set}
    return dict(section) if isinstance(section, dict) else None


def held_shape(name: str, shape: Shape | None, preprocess: PreprocessSpec) -> Shape:
    """(H, W, C) of a dataset's images as workers hold them: as stored, or the squares asked for.

    Raises: JobError for images of different sizes, which are stored encoded, without a size.
    """
    if shape is not None:
        return shape
    if preprocess.resize is None:
        raise JobError(
            f"the images of {name} have different sizes; set preprocess.resize to the height and "
            "width for the network, such as 224"
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
            f"augment.fill {augment.fill} is for augment.rotation, shift and zoom, but the job "
            "has none of them; leave it out"
        )
    if preprocess.epsilon is not None and "epsilon" not in preprocess.reads:
        raise JobError(
            f"preprocess.normalize {preprocess.normalize} does not use preprocess.epsilon; leave "
            "it out, or set preprocess.normalize=whitening"
        )
    check_whitening(preprocess, shape)
    if preprocess.normalize == "imagenet" and shape[2] not in (1, 3):
        raise JobError(
            "preprocess.normalize imagenet requires images with 1 or 3 channels, not "
            f"{shape[2]}; choose another one, such as standardize"
        )


def check_whitening(preprocess: PreprocessSpec, shape: Shape) -> None:
    """Refuse whitening of images whose matrix would be too large. Raises: JobError."""
    values = math.prod(shape)
    if preprocess.normalize == "whitening" and values > math.prod(LARGEST_WHITENED):
        size, largest = ("x".join(map(str, sizes)) for sizes in (shape, LARGEST_WHITENED))
        raise JobError(
            f"preprocess.normalize whitening of {size} images requires a matrix of {values} x "
            f"{values} numbers; the largest possible images are {largest}; choose another one, "
            "such as standardize"
        )


def _check_crop(augment: AugmentSpec, shape: Shape) -> None:
    crop, side = augment.padded_crop, min(shape[:2])
    if crop is not None and crop.padding >= side:
        raise JobError(
            f"augment.padded_crop.padding {crop.padding} could remove a whole image of "
            f"{shape[0]}x{shape[1]} pixels; give at most {side - 1}"
        )


def _check_cutout(augment: AugmentSpec, shape: Shape) -> None:
    cutout, side = augment.cutout, max(shape[:2])
    if cutout is not None and cutout.size >= side:
        raise JobError(
            f"augment.cutout.size {cutout.size} could remove a whole image of "
            f"{shape[0]}x{shape[1]} pixels; give at most {side - 1}"
        )
