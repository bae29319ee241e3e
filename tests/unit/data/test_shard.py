"""Each row once an epoch and the same rows in the same steps, whether a shard stays or streams."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch

from cifarray.data.parquet import dataset_schema, read_columns, read_images
from cifarray.data.shard import (
    ResidentShard,
    Rows,
    Shard,
    StreamedShard,
    hold,
    rows_from_table,
    seed_of,
)
from cifarray.data.split import Selection, select_rows
from cifarray.training.batches import StepPlan
from tests.digit_sessions import CPU, Digits, shard_reader, small_job

SHAPE = (8, 8, 1)
KINDS = {"resident": 1 << 30, "streamed": 0}
"""Kind of shard -> memory that it may take."""
WORLDS = (1, 2, 3)
ROWS = (None, 101, 41)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


def selected(digits: Digits, rows: int | None) -> Selection:
    job = small_job(dataset={"rows": rows}, validation={"fraction": 0.3})
    return select_rows(digits.store, digits.manifest, job)


def open_shard(
    digits: Digits, kind: str, split: str = "train", world_size: int = 1, rank: int = 0,
    rows: int | None = 101,
) -> Shard:  # fmt: skip
    positions = selected(digits, rows).shard(split, world_size, rank)
    read = shard_reader(digits.store, digits.manifest)

    def tables(seed: int | None) -> Iterator[pa.Table]:
        return read(split, positions, "label", seed)

    return hold(tables, len(positions), SHAPE, CPU, KINDS[kind])


def stored_ids(digits: Digits, split: str, rows: int | None) -> list[int]:
    """The row_ids of a split in stored order."""
    stored = read_columns(digits.store, digits.manifest, "train", ["row_id"])["row_id"].to_numpy()
    return stored[selected(digits, rows).positions[split]].tolist()


def ids(batches: list[Rows]) -> list[int]:
    return [row for batch in batches for row in batch.row_ids_N.tolist()]


def sizes_of(rows: int, batch: int = 16) -> tuple[int, ...]:
    return StepPlan.make([rows], batch, 0).sizes


@pytest.mark.parametrize("kind", KINDS)
def test_the_budget_decides_whether_a_shard_stays(digits: Digits, kind: str):
    expected = ResidentShard if kind == "resident" else StreamedShard
    assert isinstance(open_shard(digits, kind), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("world_size", WORLDS)
def test_ranks_see_each_train_row_once_an_epoch(
    digits: Digits, world_size: int, rows: int | None, kind: str
):
    shards = [open_shard(digits, kind, "train", world_size, r, rows) for r in range(world_size)]
    counts = [shard.rows for shard in shards]
    expected = sorted(stored_ids(digits, "train", rows))
    for epoch in (1, 2):
        seen = []
        for rank, shard in enumerate(shards):
            sizes = StepPlan.make(counts, 16, rank).sizes
            batches = list(shard.shuffled(seed_of(epoch, rank), sizes))
            assert [len(batch) for batch in batches] == list(sizes)
            seen += ids(batches)
        assert sorted(seen) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("world_size", WORLDS)
def test_ranks_evaluate_each_row_once_in_stored_order(
    digits: Digits, world_size: int, split: str, kind: str
):
    seen = []
    for rank in range(world_size):
        shard = open_shard(digits, kind, split, world_size, rank)
        batches = list(shard.in_order(10))
        assert [len(batch) for batch in batches[:-1]] == [10] * (len(batches) - 1)
        seen += ids(batches)
    assert seen == stored_ids(digits, split, 101)


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_depends_on_its_seed_alone(digits: Digits, kind: str):
    shard, again = (open_shard(digits, kind, rows=None) for _ in range(2))
    sizes = sizes_of(shard.rows)
    first = ids(list(shard.shuffled(1, sizes)))
    torch.rand(3)
    assert ids(list(shard.shuffled(1, sizes))) == first
    assert ids(list(again.shuffled(1, sizes))) == first
    other = ids(list(shard.shuffled(2, sizes)))
    assert other != first
    assert sum(a == b for a, b in zip(first, other, strict=True)) < len(first) / 50


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_stay_with_their_rows_through_a_shuffle(digits: Digits, kind: str):
    shard = open_shard(digits, kind)
    rows = Rows.join(list(shard.shuffled(3, sizes_of(shard.rows))))
    stored = read_columns(digits.store, digits.manifest, "train", ["row_id", "label"])
    label_of = dict(zip(*(column.to_pylist() for column in stored.columns), strict=True))
    assert rows.labels_N.tolist() == [label_of[row] for row in rows.row_ids_N.tolist()]
    images = read_images(digits.store, digits.manifest, "train", rows.row_ids_N.numpy())
    assert np.array_equal(rows.images_NCHW.permute(0, 2, 3, 1).numpy(), images)
    assert rows.images_NCHW.dtype == torch.uint8
    assert (rows.labels_N.dtype, rows.row_ids_N.dtype) == (torch.int64, torch.int64)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_that_is_left_early_leaves_the_next_one_whole(digits: Digits, kind: str):
    shard = open_shard(digits, kind)
    sizes = sizes_of(shard.rows)
    next(shard.shuffled(1, sizes))
    assert sorted(ids(list(shard.shuffled(2, sizes)))) == sorted(stored_ids(digits, "train", 101))


def test_a_resident_shard_is_read_once_and_a_streamed_one_each_epoch(digits: Digits):
    positions = selected(digits, 101).positions["train"]
    read = shard_reader(digits.store, digits.manifest)
    seeds: list[int | None] = []

    def tables(seed: int | None) -> Iterator[pa.Table]:
        seeds.append(seed)
        return read("train", positions, "label", seed)

    sizes = sizes_of(len(positions))
    for kind in KINDS.values():
        shard = hold(tables, len(positions), SHAPE, CPU, kind)
        for epoch in (1, 2):
            list(shard.shuffled(epoch, sizes))
        list(shard.in_order(16))
    assert seeds == [None, 1, 2, None]


def random_tables(rows: int, groups: int) -> tuple[list[pa.Table], Rows]:
    """Tables as Parquet gives them, of three channels, and the same rows as tensors."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (rows, 4, 5, 3), dtype=np.uint8)
    labels = draws.integers(0, 10, rows)
    schema = dataset_schema((4, 5, 3), coarse=False)
    columns = {
        "image": [image.tobytes() for image in images],
        "label": labels,
        "row_id": np.arange(rows),
    }
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    table = table.select(["image", "label", "row_id"])
    cuts = np.linspace(0, rows, groups + 1).astype(int)
    parts = [table.slice(low, high - low) for low, high in pairwise(cuts)]
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    return parts, Rows(nchw, torch.from_numpy(labels), torch.arange(rows))


def assert_same_rows(found: Rows, expected: Rows) -> None:
    assert torch.equal(found.images_NCHW, expected.images_NCHW)
    assert torch.equal(found.labels_N, expected.labels_N)
    assert torch.equal(found.row_ids_N, expected.row_ids_N)


def test_a_table_becomes_tensors_whatever_its_slices_and_chunks():
    parts, rows = random_tables(23, 4)
    assert_same_rows(Rows.join([rows_from_table(part, (4, 5, 3)) for part in parts]), rows)
    assert_same_rows(rows_from_table(pa.concat_tables(parts), (4, 5, 3)), rows)
    empty = rows_from_table(parts[0].slice(0, 0), (4, 5, 3))
    assert empty.images_NCHW.shape == (0, 3, 4, 5)


def test_a_stream_mixes_rows_of_different_row_groups():
    parts, _ = random_tables(20000, 40)
    shard = StreamedShard(lambda seed: iter(parts), 20000, (4, 5, 3), CPU)
    first = next(shard.shuffled(0, [100] * 200))
    groups = {row // 500 for row in first.row_ids_N.tolist()}
    assert len(groups) > 10


def test_a_stream_gives_every_row_once_when_it_is_larger_than_its_buffer():
    parts, rows = random_tables(20000, 40)
    shard = StreamedShard(lambda seed: iter(parts), 20000, (4, 5, 3), CPU)
    sizes = sizes_of(20000, 300)
    joined = Rows.join(list(shard.shuffled(0, sizes)))
    assert_same_rows(joined.take(joined.row_ids_N.argsort()), rows)


def test_a_stream_of_large_images_waits_for_fewer_of_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cifarray.data.shard.STREAM_BUFFER_BYTES", 1000 * 4 * 5 * 3)
    parts, rows = random_tables(20000, 40)
    begun = []
    shard = StreamedShard(lambda seed: (begun.append(p) or p for p in parts), 20000, (4, 5, 3), CPU)
    pieces = shard.shuffled(0, [100] * 200)
    first = next(pieces)
    assert len(begun) == 2
    joined = Rows.join([first, *pieces])
    assert_same_rows(joined.take(joined.row_ids_N.argsort()), rows)


def test_an_empty_shard_gives_nothing():
    shard = hold(lambda seed: iter(()), 0, SHAPE, CPU, 10)
    assert shard.rows == 0
    assert list(shard.in_order(4)) == []


def test_a_seed_depends_on_every_part():
    assert seed_of(1, "order", 0, 2) == seed_of(1, "order", 0, 2)
    others = {seed_of(*parts) for parts in ((1, "order", 0, 3), (1, "order", 1, 2), (2, "x", 0, 2))}
    assert len(others | {seed_of(1, "order", 0, 2)}) == 4
    assert all(0 <= seed < 2**63 for seed in others)
