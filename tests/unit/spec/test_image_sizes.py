"""What images of a size rule out is refused in one sentence, whoever asks."""

from typing import Any

import pytest

from cifarray.errors import JobError
from cifarray.spec.augment import AugmentSpec, PreprocessSpec, check_images

RGB = (32, 32, 3)
WHITENING = {"normalize": "whitening", "epsilon": 0.1}


def check(augment: dict[str, Any], preprocess: dict[str, Any], shape: tuple[int, ...]) -> None:
    height, width, channels = shape
    check_images(
        AugmentSpec.model_validate(augment),
        PreprocessSpec.model_validate(preprocess),
        (height, width, channels),
    )


@pytest.mark.parametrize(
    ("augment", "preprocess", "shape", "sentence"),
    [
        ({"padded_crop": {"padding": 20}}, {}, (32, 20, 3), r"of 32x20 pixels; give at most 19"),
        ({"cutout": {"size": 32}}, {}, (32, 20, 3), r"cutout\.size 32 could remove .* at most 31"),
        ({"fill": "zeros", "horizontal_flip": {}}, {}, RGB, r"augment\.fill zeros is for augment"),
        ({}, {"epsilon": 0.1}, RGB, r"normalize standardize does not use preprocess\.epsilon; lea"),
        (
            {},
            WHITENING,
            (65, 64, 3),
            r"whitening of 65x64x3 images requires a matrix of 12480 x 12480 .*images are 64x64x3",
        ),
        ({}, {"normalize": "imagenet"}, (32, 32, 4), r"images with 1 or 3 channels, not 4; ch"),
    ],
)
def test_what_cannot_be_done_is_refused(
    augment: dict[str, Any], preprocess: dict[str, Any], shape: tuple[int, ...], sentence: str
):
    with pytest.raises(JobError, match=sentence) as caught:
        check(augment, preprocess, shape)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("augment", "preprocess", "shape"),
    [
        ({"padded_crop": {"padding": 19}, "cutout": {"size": 31}}, {}, (32, 20, 3)),
        ({"fill": "zeros", "shift": {"fraction": 0.1}}, {}, RGB),
        ({}, WHITENING, (64, 64, 3)),
        ({}, WHITENING, (110, 111, 1)),
        ({}, {"normalize": "imagenet"}, (28, 28, 1)),
        ({}, {"normalize": "imagenet"}, RGB),
    ],
)
def test_what_can_be_done_passes(
    augment: dict[str, Any], preprocess: dict[str, Any], shape: tuple[int, ...]
):
    check(augment, preprocess, shape)
