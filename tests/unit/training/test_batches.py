"""Steps of an epoch: equally many on every rank, none empty, every row once."""

import itertools

import pytest
import torch

from cifarray.data.augment import Augment
from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import ResidentShard, Rows
from cifarray.data.split import shard_range
from cifarray.spec.augment import AugmentSpec, FlipSpec, PaddedCropSpec, PreprocessSpec
from cifarray.training.batches import Batch, StepPlan, TrainBatches
from tests.digit_sessions import CPU

COMBINATIONS = [
    (rows, world_size, batch)
    for rows, world_size, batch in itertools.product(
        (3, 7, 10, 41, 64, 97, 1000, 1293), (1, 2, 3, 5, 8), (1, 2, 3, 8, 32, 100, 256, 1293)
    )
    if world_size <= batch <= rows
]
"""What preflight lets through: a global batch of at least the world size and at most the rows."""


def shards_of(rows: int, world_size: int) -> list[int]:
    ranges = (shard_range(rows, world_size, rank) for rank in range(world_size))
    return [high - low for low, high in ranges]


def plans(shard_rows: list[int], batch: int) -> list[StepPlan]:
    return [StepPlan.make(shard_rows, batch, rank) for rank in range(len(shard_rows))]


def test_every_rank_takes_the_same_number_of_steps_and_none_is_empty():
    assert len(COMBINATIONS) > 100
    for rows, world_size, batch in COMBINATIONS:
        made = plans(shards_of(rows, world_size), batch)
        assert len({len(plan.sizes) for plan in made}) == 1
        assert all(size >= 1 for plan in made for size in plan.sizes), (rows, world_size, batch)


def test_every_row_of_every_rank_is_in_one_step():
    for rows, world_size, batch in COMBINATIONS:
        shard_rows = shards_of(rows, world_size)
        made = plans(shard_rows, batch)
        assert [sum(plan.sizes) for plan in made] == shard_rows


def test_an_epoch_has_the_steps_that_the_global_batch_asks_for():
    for rows, world_size, batch in COMBINATIONS:
        shard_rows = shards_of(rows, world_size)
        steps = min(-(-rows // batch), min(shard_rows))
        totals = [
            sum(sizes) for sizes in zip(*(p.sizes for p in plans(shard_rows, batch)), strict=True)
        ]
        assert len(totals) == steps
        assert all(abs(total - rows / steps) < world_size for total in totals)


def test_a_steps_scale_makes_of_all_ranks_sums_the_mean_over_its_rows():
    for rows, world_size, batch in COMBINATIONS:
        made = plans(shards_of(rows, world_size), batch)
        for step in range(len(made[0].sizes)):
            total = sum(plan.sizes[step] for plan in made)
            (scale,) = {plan.scales[step] for plan in made}
            assert scale / world_size == pytest.approx(1 / total)  # DDP divides by world_size


def test_ranks_whose_shards_differ_a_lot_take_the_same_steps():
    made = plans([3, 40, 17], 6)
    assert [len(plan.sizes) for plan in made] == [3, 3, 3]
    assert [sum(plan.sizes) for plan in made] == [3, 40, 17]


def random_rows(count: int) -> Rows:
    draws = torch.Generator().manual_seed(1)
    images_NCHW = torch.randint(0, 256, (count, 3, 8, 8), generator=draws, dtype=torch.uint8)
    return Rows(images_NCHW, torch.arange(count) % 10, torch.arange(count))


def batches(seed: int = 0, rank: int = 0, augment: AugmentSpec | None = None, **options: bool):
    return TrainBatches(
        shard=ResidentShard(random_rows(40), CPU),
        plan=StepPlan.make([40], 16, 0),
        augment=Augment(augment or AugmentSpec()),
        normalize=Normalize(PreprocessSpec(normalize="none"), [0.0] * 3, [1.0] * 3),
        seed=seed,
        rank=rank,
        **options,
    )


def joined(made: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    images_NCHW = torch.cat([batch.images_NCHW for batch in made])
    return images_NCHW, torch.cat([batch.labels_N for batch in made])


def test_an_epochs_batches_hold_each_image_once_with_its_label():
    rows = random_rows(40)
    images_NCHW, labels_N = joined(list(batches().epoch(1)))
    assert images_NCHW.dtype == torch.float32
    expected = zip(rows.images_NCHW.float(), rows.labels_N.tolist(), strict=True)
    found = zip(images_NCHW, labels_N.tolist(), strict=True)
    assert sorted((image.numpy().tobytes(), label) for image, label in found) == sorted(
        (image.numpy().tobytes(), label) for image, label in expected
    )


AUGMENT = AugmentSpec(horizontal_flip=FlipSpec(), padded_crop=PaddedCropSpec(padding=2))


def test_batches_depend_only_on_seed_rank_and_epoch():
    made = batches(augment=AUGMENT)
    again = batches(augment=AUGMENT)
    list(made.epoch(1))
    torch.rand(5)
    for a, b in zip(made.epoch(2), again.epoch(2), strict=True):
        assert torch.equal(a.images_NCHW, b.images_NCHW)
        assert torch.equal(a.labels_N, b.labels_N)


@pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 1}, {"epoch": 3}])
def test_another_seed_rank_or_epoch_gives_another_order(other: dict[str, int]):
    epoch = other.pop("epoch", 2)
    here = joined(list(batches().epoch(2)))
    there = joined(list(batches(**other).epoch(epoch)))
    assert not torch.equal(here[1], there[1])


def test_each_epoch_draws_its_augmentation_anew():
    one_image = TrainBatches(
        shard=ResidentShard(random_rows(1), CPU),
        plan=StepPlan.make([1], 1, 0),
        augment=Augment(AUGMENT),
        normalize=Normalize(PreprocessSpec(normalize="none"), [0.0] * 3, [1.0] * 3),
        seed=0,
        rank=0,
    )
    views = {next(one_image.epoch(epoch)).images_NCHW.numpy().tobytes() for epoch in range(20)}
    assert len(views) > 10


def test_batches_are_channels_last_when_asked():
    (first, *_) = batches(channels_last=True).epoch(1)
    (plain, *_) = batches().epoch(1)
    assert torch.equal(first.images_NCHW, plain.images_NCHW)
    assert first.images_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert not plain.images_NCHW.is_contiguous(memory_format=torch.channels_last)
