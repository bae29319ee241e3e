"""Images of any size become squares of the network's, last of all and as torchvision does it."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from cifarray.data.augment.normalize import Normalize
from cifarray.spec.augment import PreprocessSpec

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def normalized(images: Tensor, **fields: object) -> Tensor:
    spec = PreprocessSpec.model_validate(fields)
    channels = images.shape[1]
    return Normalize(spec, MEAN[:channels], STD[:channels])(images)


@pytest.mark.parametrize("side", [12, 31, 48, 224])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 32), (32, 17)])
def test_resizing_is_torchvisions_bilinear_one(photos: Tensor, side: int, height: int, width: int):
    images = photos[:20, :, :height, :width]
    expected = resize(images.float() / 255, [side, side], antialias=True)
    found = normalized(images, normalize="unit", resize=side)
    assert found.shape == (20, 3, side, side)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalize", ["none", "unit", "signed", "standardize"])
def test_scaling_before_or_after_resizing_comes_to_the_same(photos: Tensor, normalize: str):
    images = photos[:20]
    after = normalized(images, normalize=normalize, resize=20)
    small = resize(images.float(), [20, 20], antialias=True)
    torch.testing.assert_close(after, normalized(small, normalize=normalize), atol=1e-3, rtol=0)


def test_the_stored_size_leaves_every_bit_as_it_was(photos: Tensor):
    same = normalized(photos[:20], normalize="unit", resize=32)
    assert torch.equal(same, normalized(photos[:20], normalize="unit"))


def test_whitening_is_of_stored_pixels(photos: Tensor):
    images = photos[:20, :, ::4, ::4]
    fitted = {
        "mean": torch.full((192,), 0.5),
        "matrix": torch.randn(192, 192, generator=torch.Generator().manual_seed(0)),
    }
    stored = PreprocessSpec(normalize="whitening", epsilon=0.1)
    resized = stored.model_copy(update={"resize": 16})
    white = Normalize(stored, MEAN, STD, fitted)(images)
    found = Normalize(resized, MEAN, STD, fitted)(images)
    torch.testing.assert_close(found, resize(white, [16, 16], antialias=True))


@pytest.mark.parametrize(
    ("fields", "shape", "seen"),
    [
        ({}, (32, 20, 1), (32, 20, 1)),
        ({"resize": 224}, (32, 20, 1), (224, 224, 1)),
        ({"normalize": "imagenet"}, (28, 28, 1), (28, 28, 3)),
        ({"normalize": "imagenet", "resize": 64}, (28, 28, 1), (64, 64, 3)),
    ],
)
def test_the_shape_that_is_foreseen_is_the_one_that_comes_out(
    fields: dict[str, object], shape: tuple[int, int, int], seen: tuple[int, int, int]
):
    spec = PreprocessSpec.model_validate(fields)
    assert spec.seen(shape) == seen
    images = torch.zeros(2, shape[2], *shape[:2], dtype=torch.uint8)
    found = Normalize(spec, MEAN[: seen[2]], STD[: seen[2]])(images)
    assert found.permute(0, 2, 3, 1).shape[1:] == seen
