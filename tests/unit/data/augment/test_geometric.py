"""Rotation, shift, zoom and flips are those of torchvision and SciPy, in one reading of pixels."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from cifarray.data.augment import Augment
from cifarray.data.augment.geometric import draw_transforms, resample, rotation, scaling, shift
from cifarray.spec.augment import AugmentSpec

ALL = {
    "horizontal_flip": {"p": 0.5},
    "vertical_flip": {"p": 0.5},
    "rotation": {"degrees": 25.0},
    "shift": {"fraction": 0.2},
    "zoom": {"fraction": 0.2},
}
SCIPYS = {"nearest": "nearest", "zeros": "grid-constant"}


def spec(**fields: object) -> AugmentSpec:
    return AugmentSpec.model_validate(fields)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one(value: float) -> Tensor:
    return torch.tensor([value])


def assert_same_pixels(found: Tensor, expected: Tensor) -> None:
    """Equal but for values half-way between two numbers, which rounding may send either way."""
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize("degrees", [-90.0, -17.5, 3.0, 25.0, 180.0])
def test_a_rotation_is_torchvisions(photos: Tensor, degrees: float):
    images = photos[:20, :, :, :24].float()
    turned = resample(images, rotation(one(math.radians(degrees))).expand(20, 3, 3), "zeros")
    expected = v2.rotate(images, degrees, InterpolationMode.BILINEAR)
    assert torch.allclose(turned, expected, atol=0.01)


@pytest.mark.parametrize(("x", "y"), [(0.0, 3.0), (-5.0, 0.0), (2.25, -7.5)])
def test_a_shift_is_torchvisions(photos: Tensor, x: float, y: float):
    images = photos[:20].float()
    moved = resample(images, shift(one(-x), one(-y)).expand(20, 3, 3), "zeros")
    expected = v2.affine(images, 0.0, [x, y], 1.0, [0.0], InterpolationMode.BILINEAR)
    assert torch.allclose(moved, expected, atol=0.01)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
def test_a_zoom_is_torchvisions(photos: Tensor, scale: float):
    images = photos[:20, :, :20].float()
    zoomed = resample(images, scaling(one(1 / scale), one(1 / scale)).expand(20, 3, 3), "zeros")
    expected = v2.affine(images, 0.0, [0.0, 0.0], scale, [0.0], InterpolationMode.BILINEAR)
    assert torch.allclose(zoomed, expected, atol=0.01)


@pytest.mark.parametrize("fill", ["nearest", "zeros"])
def test_all_of_them_together_are_one_reading_of_scipys(photos: Tensor, fill: str):
    images = photos[:12, :, :, 3:27]
    found = Augment(spec(**ALL, fill=fill))(images, seeded())
    transforms = draw_transforms(spec(**ALL), 12, (32, 24), seeded()).double().numpy()
    swapped = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # SciPy counts (row, column)
    center = np.array([31 / 2, 23 / 2])
    for image, transform, changed in zip(images, transforms, found, strict=True):
        by_rows = swapped @ transform @ swapped
        matrix = by_rows[:2, :2]
        offset = by_rows[:2, 2] + center - matrix @ center
        planes = [
            affine_transform(plane, matrix, offset, order=1, mode=SCIPYS[fill])
            for plane in image.double().numpy()
        ]
        expected = torch.from_numpy(np.stack(planes)).round().to(torch.uint8)
        assert_same_pixels(changed, expected)


def test_an_output_pixel_is_flipped_zoomed_shifted_and_turned_in_this_order():
    drawn = draw_transforms(spec(**ALL), 50, (32, 24), seeded(3))
    generator = seeded(3)
    angles = (torch.rand(1, 50, generator=generator) * 2 - 1)[0] * math.radians(25)
    shifts = (torch.rand(2, 50, generator=generator) * 2 - 1) * 0.2
    zooms = 1 + (torch.rand(2, 50, generator=generator) * 2 - 1) * 0.2
    signs = torch.where(torch.rand(2, 50, generator=generator) < 0.5, -1.0, 1.0)
    point = torch.tensor([5.0, -3.0])
    for n in range(50):
        x, y = (signs[:, n] * zooms[:, n] * point + shifts[:, n] * torch.tensor([24, 32])).tolist()
        cosine, sine = math.cos(angles[n]), math.sin(angles[n])
        expected = torch.tensor([x * cosine - y * sine, x * sine + y * cosine, 1.0])
        assert torch.allclose(drawn[n] @ torch.tensor([*point, 1.0]), expected, atol=1e-4)


def test_gaps_are_filled_with_the_nearest_pixel_unless_the_job_says_zeros(photos: Tensor):
    images = photos[:20].clamp(min=1)
    far = {"shift": {"fraction": 0.9}}
    assert (Augment(spec(**far))(images, seeded()) > 0).all()
    nearest = Augment(spec(**far, fill="nearest"))(images, seeded())
    assert torch.equal(nearest, Augment(spec(**far))(images, seeded()))
    assert (Augment(spec(**far, fill="zeros"))(images, seeded()) == 0).float().mean() > 0.3


def test_each_image_has_its_own_draw(photos: Tensor):
    images = photos[:1].expand(64, -1, -1, -1)
    changed = Augment(spec(**ALL))(images, seeded())
    assert len({image.numpy().tobytes() for image in changed}) == 64


@pytest.mark.parametrize("name", ["rotation", "shift", "zoom"])
def test_draws_fill_their_range_evenly(name: str):
    (field,) = ALL[name]
    drawn = draw_transforms(spec(**{name: {field: 0.5}}), 4000, (10, 10), seeded())
    found = {
        "rotation": torch.rad2deg(torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0])),
        "shift": drawn[:, 0, 2] / 10,
        "zoom": drawn[:, 1, 1] - 1,
    }[name]
    counts = torch.histc(found, bins=4, min=-0.5, max=0.5)
    assert counts.sum() == 4000
    assert (counts - 1000).abs().max() < 4 * (4000 * 3 / 16) ** 0.5


@pytest.mark.parametrize("nothing", [{"rotation": {"degrees": 0}}, {"shift": {"fraction": 0}}])
def test_a_range_of_nothing_changes_no_pixel(photos: Tensor, nothing: dict[str, object]):
    images = photos[:50]
    assert torch.equal(Augment(spec(**nothing))(images, seeded()), images)


@pytest.mark.parametrize(("flip", "dim"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_a_flip_alone_moves_whole_pixels_and_beside_a_zoom_it_is_part_of_that(
    photos: Tensor, flip: str, dim: int
):
    images = photos[:20]
    alone, beside = spec(**{flip: {"p": 1}}), spec(**{flip: {"p": 1}}, zoom={"fraction": 0})
    assert torch.equal(Augment(alone)(images, seeded()), images.flip(dim))
    assert torch.equal(Augment(beside)(images, seeded()), images.flip(dim))
    assert (len(Augment(alone).steps), len(Augment(beside).steps)) == (1, 1)
    some = Augment(spec(**{flip: {"p": 0.5}}, zoom={"fraction": 0}))(images, seeded())
    for image, changed in zip(images, some, strict=True):
        assert torch.equal(changed, image) or torch.equal(changed, image.flip(dim - 1))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 1, 8, 5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_shape_and_type_stay(shape: tuple[int, ...], dtype: torch.dtype):
    images = torch.ones(shape, dtype=dtype)
    changed = Augment(spec(**ALL))(images, seeded())
    assert (changed.shape, changed.dtype) == (images.shape, dtype)
