"""Whitening is NumPy's and scikit-learn's, exact sums first, and every other scaling is a line."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from cifarray.data.augment.normalize import Normalize, PixelSums, pixel_sums, spectrum
from cifarray.models.timm_backbone import imagenet_numbers
from cifarray.spec.augment import PreprocessSpec
from tests.digit_sessions import CPU

EPSILON = 1e-3


@pytest.fixture(scope="module")
def crops(photos: Tensor) -> Tensor:
    """The middle of each image, 192 values: fewer than there are images."""
    return photos[:2000, :, 12:20, 12:20].contiguous()


def pixel_sums_of(images: Tensor, parts: int = 1) -> PixelSums:
    return pixel_sums(images.tensor_split(parts), images[0].numel(), CPU)


def whitening(images: Tensor, epsilon: float) -> Normalize:
    found = spectrum(pixel_sums_of(images, 5))
    fitted = {"mean": found.mean_P.float(), "matrix": found.matrix(epsilon).float()}
    spec = PreprocessSpec(normalize="whitening", epsilon=epsilon)
    return Normalize(spec, [0.5] * 3, [0.2] * 3, fitted)


def test_whitened_images_are_those_of_a_plain_computation_in_numpy(crops: Tensor):
    flat = crops.flatten(1).numpy().astype(np.float64) / 255
    centered = flat - flat.mean(0)
    u, s, _ = np.linalg.svd(centered.T @ centered / len(flat))
    expected = centered @ (u / np.sqrt(s + EPSILON)) @ u.T
    found = whitening(crops, EPSILON)(crops).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_matrix_is_that_of_scikit_learns_principal_components(crops: Tensor):
    flat = crops.flatten(1).double().numpy() / 255
    pca = PCA(svd_solver="full").fit(flat)
    variances = pca.explained_variance_ * (len(flat) - 1) / len(flat)  # it divides by n - 1
    expected = (pca.components_.T / np.sqrt(variances + EPSILON)) @ pca.components_
    found = spectrum(pixel_sums_of(crops))
    np.testing.assert_allclose(found.matrix(EPSILON).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.mean_P.numpy(), pca.mean_, atol=1e-12)


def test_whitened_pixels_are_uncorrelated_and_stay_near_their_place(crops: Tensor):
    flat = whitening(crops, 1e-9)(crops).flatten(1).double()
    variances = spectrum(pixel_sums_of(crops)).variances_P
    covariance = flat.T @ flat / len(flat)
    assert flat.mean(0).abs().max() < 5e-3  # float32, times up to 1 / sqrt(epsilon)
    if variances.min() > 1e-6:  # real images vary in every direction
        assert (covariance - torch.eye(192)).abs().max() < 0.02
    matrix = spectrum(pixel_sums_of(crops)).matrix(1e-9)
    assert torch.allclose(matrix, matrix.T)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_sums_are_the_same_bits_however_the_rows_are_divided(photos: Tensor, parts: int):
    images = photos[:1000, :, ::4, ::4]
    whole, divided = pixel_sums_of(images), pixel_sums_of(images, parts)
    assert torch.equal(whole.sums_P, divided.sums_P)
    assert torch.equal(whole.products_PP, divided.products_PP)
    pixels = images.flatten(1).numpy().astype(np.int64) - 128
    assert np.array_equal(whole.products_PP.numpy(), pixels.T @ pixels)


def test_the_largest_sums_of_a_batch_are_exact():
    images = torch.zeros(1024, 1, 1, 2, dtype=torch.uint8)
    found = pixel_sums_of(images)
    assert found.products_PP.tolist() == [[1024 * 128.0**2] * 2] * 2


def test_a_pixel_that_never_changes_is_divided_by_the_root_of_epsilon_alone():
    images = torch.randint(0, 256, (500, 1, 2, 2), dtype=torch.uint8)
    images[:, 0, 0, 0] = 51
    matrix = spectrum(pixel_sums_of(images)).matrix(0.01)
    assert matrix[0].tolist() == pytest.approx([10.0, 0.0, 0.0, 0.0], abs=1e-6)


def test_whitening_keeps_shape_and_takes_its_modules_type(crops: Tensor):
    normalize = whitening(crops, EPSILON)
    single, double = normalize(crops[:7]), normalize.double()(crops[:7])
    assert single.shape == crops[:7].shape
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert torch.allclose(single.double(), double, atol=1e-3)
    assert normalize.state_dict() == {}


def test_signed_pixels_go_from_minus_one_to_one():
    spec = PreprocessSpec(normalize="signed")
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    found = Normalize(spec, [0.1], [0.1])(images).flatten().tolist()
    assert found == pytest.approx([-1.0, -0.6, 1.0], abs=1e-6)


@pytest.mark.parametrize("model", ["timm/resnet50", "timm/inception_v3"])
def test_imagenet_normalization_is_torchvisions(photos: Tensor, model: str):
    mean, std = imagenet_numbers(model)
    found = Normalize(PreprocessSpec(normalize="imagenet"), mean, std)(photos[:50])
    expected = v2.normalize(v2.to_dtype(photos[:50], scale=True), list(mean), list(std))
    assert torch.allclose(found, expected, atol=1e-5)


def test_imagenet_normalization_makes_three_equal_channels_of_gray_images(photos: Tensor):
    mean, std = imagenet_numbers("resnet18")
    normalize = Normalize(PreprocessSpec(normalize="imagenet"), mean, std)
    gray = photos[:20, :1]
    assert torch.equal(normalize(gray), normalize(gray.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("model", "first_mean"),
    [
        ("resnet18", 0.485),
        ("timm/resnet50", 0.485),
        ("timm/densenet121.ra_in1k", 0.485),
        ("timm/mobilenetv2_100.ra_in1k", 0.485),
        ("timm/inception_v3.gluon_in1k", 0.485),
        ("timm/inception_v3.tv_in1k", 0.5),
        ("timm/inception_resnet_v2.tf_in1k", 0.5),
        ("timm/mobilenetv1_100.ra4_e3600_r224_in1k", 0.5),
    ],
)
def test_backbones_get_the_numbers_of_their_own_weights(model: str, first_mean: float):
    mean, std = imagenet_numbers(model)
    assert mean[0] == first_mean
    assert std == ((0.5, 0.5, 0.5) if first_mean == 0.5 else (0.229, 0.224, 0.225))
