"""Augmentation: every image its own true crop or flip, and nothing else."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from cifarray.data.augment import AUGMENTATIONS, Augment
from cifarray.data.augment.geometric import horizontal_flip, padded_crop
from cifarray.data.augment.mix import MIXINGS
from cifarray.data.augment.normalize import Normalize
from cifarray.errors import DatasetError
from cifarray.spec.augment import AugmentSpec, FlipSpec, PaddedCropSpec, PreprocessSpec

BOTH = AugmentSpec(horizontal_flip=FlipSpec(), padded_crop=PaddedCropSpec(padding=2))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int = 200, c: int = 3, h: int = 8, w: int = 6) -> Tensor:
    return torch.randint(1, 256, (n, c, h, w), dtype=torch.uint8, generator=seeded(9))


def places_of(crops: Tensor, images: Tensor, padding: int) -> list[tuple[int, int]]:
    """Where each crop was cut; an image of random pixels has one such place."""
    h, w = images.shape[2:]
    places = []
    for crop, image in zip(crops, images, strict=True):
        padded = pad(image, (padding,) * 4)
        found = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if torch.equal(padded[:, top : top + h, left : left + w], crop)
        ]
        assert len(found) == 1
        places += found
    return places


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [1, 4])
def test_every_output_is_a_true_crop_of_the_zero_padded_image(channels: int, padding: int):
    images = random_images(c=channels)
    places_of(padded_crop(images, seeded(), padding), images, padding)


def test_each_image_is_cut_at_its_own_place_and_every_place_occurs():
    images = random_images(600)
    places = places_of(padded_crop(images, seeded(), 1), images, 1)
    assert set(places) == {(top, left) for top in range(3) for left in range(3)}
    counts = [places.count(place) for place in set(places)]
    assert min(counts) > 600 / 9 - 4 * (600 * 8 / 81) ** 0.5  # four standard deviations
    assert max(counts) < 600 / 9 + 4 * (600 * 8 / 81) ** 0.5


def test_a_flip_mirrors_some_images_and_leaves_the_others():
    images = random_images(1000)
    flipped = horizontal_flip(images, seeded(), 0.3)
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert abs(mirrored.float().mean().item() - 0.3) < 4 * (0.3 * 0.7 / 1000) ** 0.5


@pytest.mark.parametrize(("p", "mirrored"), [(0.0, False), (1.0, True)])
def test_a_flip_of_probability_0_or_1_is_certain(p: float, mirrored: bool):
    images = random_images(50)
    assert torch.equal(horizontal_flip(images, seeded(), p), images.flip(3) if mirrored else images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_augmented_images_keep_their_shape_and_type_and_the_given_ones_their_pixels(
    dtype: torch.dtype,
):
    images = random_images().to(dtype)
    before = images.clone()
    augmented = Augment(BOTH)(images, seeded())
    assert augmented.shape == images.shape
    assert augmented.dtype == dtype
    assert augmented.is_contiguous()
    assert not torch.equal(augmented, images)
    assert torch.equal(images, before)


def test_the_same_seed_gives_the_same_images_and_another_gives_others():
    images = random_images()
    first, same, other = (Augment(BOTH)(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_generator_goes_on_from_batch_to_batch():
    images, generator = random_images(), seeded()
    augment = Augment(BOTH)
    assert not torch.equal(augment(images, generator), augment(images, generator))


def test_a_generator_state_that_was_kept_continues_the_draws():
    images, generator = random_images(), seeded()
    augment = Augment(BOTH)
    augment(images, generator)
    state = generator.get_state()
    expected = augment(images, generator)
    resumed = torch.Generator()
    resumed.set_state(state)
    assert torch.equal(augment(images, resumed), expected)


def test_an_augmentation_that_is_off_changes_nothing():
    images = random_images()
    assert torch.equal(Augment(AugmentSpec())(images, seeded()), images)


def test_every_augmentation_that_a_job_may_name_is_registered():
    resampled, no_augmentations = {"rotation", "shift", "zoom"}, {"preset", "fill"}
    known = {*AUGMENTATIONS, *MIXINGS, *resampled, *no_augmentations}
    assert known == AugmentSpec.model_fields.keys()


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 1, 8, 8)])
def test_the_smallest_batches_pass(shape: tuple[int, ...]):
    images = torch.ones(shape, dtype=torch.uint8)
    assert Augment(BOTH)(images, seeded()).shape == shape


def test_standardized_pixels_have_the_given_mean_and_deviation():
    images = random_images(500)
    unit = images.double() / 255
    mean, std = unit.mean((0, 2, 3)), unit.std((0, 2, 3), unbiased=False)
    normalize = Normalize(PreprocessSpec(), mean.tolist(), std.tolist())
    floats = normalize(images)
    assert floats.dtype == torch.float32
    assert floats.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert floats.std((0, 2, 3), unbiased=False).tolist() == pytest.approx([1, 1, 1], rel=1e-5)
    expected = (unit - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(floats.double(), expected, atol=1e-5)


@pytest.mark.parametrize(("normalize", "highest"), [("unit", 1.0), ("none", 255.0)])
def test_other_ways_to_normalize_ignore_mean_and_deviation(normalize: str, highest: float):
    spec = PreprocessSpec.model_validate({"normalize": normalize})
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    floats = Normalize(spec, [0.5], [0.0])(images)
    assert floats.flatten().tolist() == pytest.approx([0.0, highest / 5, highest])


def test_normalization_leaves_float_images_as_they_were():
    images = torch.full((1, 1, 2, 2), 100.0)
    assert Normalize(PreprocessSpec(), [0.2], [0.5])(images)[0, 0, 0, 0] != 100.0
    assert (images == 100.0).all()


def test_normalization_follows_its_modules_type_and_keeps_out_of_the_state_dict():
    normalize = Normalize(PreprocessSpec(), [0.2], [0.5]).double()
    assert normalize(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)).dtype == torch.float64
    assert normalize.state_dict() == {}


def test_a_channel_without_deviation_cannot_be_standardized():
    with pytest.raises(DatasetError, match=r"set preprocess\.normalize=unit"):
        Normalize(PreprocessSpec(), [0.5, 0.5], [0.2, 0.0])
