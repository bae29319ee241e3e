"""The loss of mixed images is torch's own against soft targets, and batches carry both labels."""

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from cifarray.data.augment import Augment
from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import ResidentShard, Rows
from cifarray.spec.augment import AugmentSpec, PreprocessSpec
from cifarray.training.batches import Batch, MixPartners, StepPlan, TrainBatches
from cifarray.training.losses import summed_loss
from tests.digit_sessions import CPU

ROWS = 12


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(mixed: bool) -> Batch:
    draws = seeded(4)
    images = torch.zeros(ROWS, 1, 2, 2)
    first, second = torch.randint(10, (2, ROWS), generator=draws)
    shares = torch.rand(ROWS, generator=draws, dtype=torch.float64) / 2
    return Batch(images, first, 1.0, MixPartners(second, shares) if mixed else None)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_images_is_that_of_soft_targets(smoothing: float):
    batch = batch_of(mixed=True)
    assert batch.second is not None
    logits = torch.randn(ROWS, 10, generator=seeded(), requires_grad=True)
    shares = batch.second.shares_N[:, None]
    soft = one_hot(batch.labels_N, 10) * (1 - shares) + one_hot(batch.second.labels_N, 10) * shares
    expected = cross_entropy(logits, soft.float(), reduction="sum", label_smoothing=smoothing)
    found = summed_loss(logits, batch, smoothing)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_whole_images_is_torchs_to_the_bit(smoothing: float):
    batch = batch_of(mixed=False)
    logits = torch.randn(ROWS, 10, generator=seeded())
    expected = cross_entropy(logits, batch.labels_N, reduction="sum", label_smoothing=smoothing)
    assert torch.equal(summed_loss(logits, batch, smoothing), expected)


def test_bf16_logits_are_judged_in_float32():
    for mixed in (False, True):
        logits = torch.randn(ROWS, 10, generator=seeded()).bfloat16()
        assert summed_loss(logits, batch_of(mixed), 0.1).dtype == torch.float32


def drawn(name: str) -> list[Batch]:
    """An epoch of images of which every pixel is the row's number, 0 to 39; so is its label."""
    numbers = torch.arange(40)
    images = numbers.to(torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16).contiguous()
    batches = TrainBatches(
        shard=ResidentShard(Rows(images, numbers, numbers), CPU),
        plan=StepPlan.make([40], 20, 0),
        augment=Augment(AugmentSpec.model_validate({name: {}})),
        normalize=Normalize(PreprocessSpec(normalize="none"), [0.0], [1.0]),
        seed=1,
        rank=0,
    )
    return list(batches.epoch(1))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_and_shares_are_those_of_the_pixels(name: str):
    for batch in drawn(name):
        assert batch.second is not None
        shares = batch.second.shares_N
        assert ((shares >= 0) & (shares <= 0.5)).all()
        mixture = batch.labels_N * (1 - shares) + batch.second.labels_N * shares
        pixels = batch.images_NCHW.double().mean((1, 2, 3))
        assert (pixels - mixture).abs().max() <= (0.5 if name == "mixup" else 1e-4)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_every_row_is_in_an_epoch_and_most_have_a_partner(name: str):
    batches = drawn(name)
    rows = {
        int(label)
        for batch in batches
        for labels in (batch.labels_N, batch.second and batch.second.labels_N)
        for label in labels  # type: ignore[union-attr]
    }
    assert rows == set(range(40))
    own = [(b.labels_N == b.second.labels_N).sum() for b in batches if b.second is not None]
    assert sum(own) < 10


def test_without_mixing_there_is_no_second_label():
    assert all(batch.second is None for batch in drawn("horizontal_flip"))
