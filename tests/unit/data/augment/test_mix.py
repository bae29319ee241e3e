"""Brightness, cutout, mixup and cutmix are what a plain loop over the images gives."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from cifarray.data.augment import Augment
from cifarray.data.augment.mix import cutmix, mixup, symmetric_beta
from cifarray.data.augment.pixel import brightness, cutout
from cifarray.spec.augment import AugmentSpec


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_brightness_is_torchvisions_with_a_factor_per_image(photos: Tensor):
    images = photos[:40]
    found = brightness(images, seeded(), 0.4)
    factors = (0.6 + 0.8 * torch.rand(40, generator=seeded())).tolist()
    assert len(set(factors)) == 40
    for image, changed, factor in zip(images, found, factors, strict=True):
        numpys = np.clip(np.rint(image.numpy() * np.float32(factor)), 0, 255)
        assert np.abs(changed.numpy() - numpys).max() <= 1
        assert (changed.numpy() != numpys).mean() < 1e-3
        theirs = v2.adjust_brightness(image, factor).int()  # which cuts fractions off
        assert (changed.int() - theirs).abs().max() <= 1


@pytest.mark.parametrize("size", [1, 4, 7])
def test_cutout_blackens_a_square_about_a_pixel_of_each_image(photos: Tensor, size: int):
    images = photos[:60, :, :, :24].clamp(min=1)
    generator = seeded(1)
    rows = torch.randint(32, (60,), generator=generator).tolist()
    columns = torch.randint(24, (60,), generator=generator).tolist()
    found = cutout(images, seeded(1), size)
    for image, changed, row, column in zip(images, found, rows, columns, strict=True):
        top, left = row - size // 2, column - size // 2
        expected = image.clone()
        expected[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert torch.equal(changed, expected)
        assert (changed == 0).any()
    assert (images > 0).all()


def test_mixup_blends_each_image_with_its_partner_by_its_own_share(photos: Tensor):
    images = photos[:50]
    found, mix = mixup(images, seeded(), 1.0)
    assert sorted(mix.partners_N.tolist()) == list(range(50))
    assert len(set(mix.shares_N.tolist())) == 50
    for n, (share, partner) in enumerate(zip(mix.shares_N, mix.partners_N, strict=True)):
        expected = images[n].numpy() * float(share) + images[partner].numpy() * (1 - float(share))
        assert np.abs(found[n].numpy() - expected).max() <= 0.501


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_puts_a_box_of_the_partner_into_each_image(photos: Tensor, alpha: float):
    images = photos[:50, :, :, :24]
    ramp = torch.arange(50, dtype=torch.uint8)[:, None, None, None]
    numbered = torch.cat([images, ramp.expand(-1, 1, 32, 24)], dim=1)  # a channel says whose it is
    found, mix = cutmix(numbered, seeded(), alpha)
    for n, (share, partner) in enumerate(zip(mix.shares_N, mix.partners_N.tolist(), strict=True)):
        whose = found[n, 3]
        assert set(whose.unique().tolist()) <= {n, partner}
        theirs = whose == partner if partner != n else torch.zeros_like(whose, dtype=torch.bool)
        if partner != n:
            assert float(share) == pytest.approx(1 - theirs.double().mean().item(), abs=1e-9)
        box = theirs.any(1)[:, None] & theirs.any(0)
        assert torch.equal(theirs, box)
        assert torch.equal(found[n], torch.where(theirs, numbered[partner], numbered[n]))


def test_cutmix_boxes_are_as_large_as_the_drawn_share_where_no_edge_cuts_them():
    images = torch.zeros(4000, 1, 40, 40, dtype=torch.uint8)
    _, mix = cutmix(images, seeded(), 1.0)
    drawn = symmetric_beta(4000, 1.0, _after_permutation(4000))
    side = ((1 - drawn).sqrt() * 40).long()
    assert (mix.shares_N >= 1 - (side.double() / 40).square() - 1e-12).all()
    whole = (mix.shares_N - (1 - (side.double() / 40).square())).abs() < 1e-12
    assert whole.double().mean() > 0.2


def _after_permutation(n: int) -> torch.Generator:
    generator = seeded()
    torch.randperm(n, generator=generator)
    return generator


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0])
def test_shares_are_drawn_from_beta(alpha: float):
    drawn = symmetric_beta(20_000, alpha, seeded(2)).numpy()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert kstest(drawn, beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_happens_only_where_the_job_asks_and_leaves_the_given_images(
    photos: Tensor, name: str
):
    images = photos[:20]
    before = images.clone()
    plain, nothing = Augment(AugmentSpec()).mix(images, seeded())
    assert plain is images
    assert nothing is None
    mixed, mix = Augment(AugmentSpec.model_validate({name: {}})).mix(images, seeded())
    assert mix is not None
    assert (mixed.shape, mixed.dtype) == (images.shape, torch.uint8)
    assert not torch.equal(mixed, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("rows", [0, 1])
def test_the_smallest_batches_mix_with_themselves(name: str, rows: int):
    images = torch.full((rows, 3, 8, 8), 7, dtype=torch.uint8)
    mixed, mix = Augment(AugmentSpec.model_validate({name: {}})).mix(images, seeded())
    assert torch.equal(mixed, images)
    assert mix is not None
    assert mix.partners_N.tolist() == list(range(rows))
