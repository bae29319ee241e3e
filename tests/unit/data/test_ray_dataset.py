"""A shard is read from the row groups that overlap it, and from no others."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from cifarray.data.parquet import read_columns, read_images
from cifarray.data.ray_dataset import RowGroups, plan_reads, read_group
from cifarray.data.split import STORED_SPLIT, Positions, Selection, select_rows
from cifarray.errors import StoreError
from cifarray.store import Store
from tests.digit_sessions import Digits, shard_reader, small_job

COLUMNS = ("image", "label", "row_id")
SPLITS = ("train", "validation", "test")
WORLDS = (1, 2, 3)
ROWS = (None, 101, 41, 11)
"""None is all 1437; none of these divides well."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


def selected(digits: Digits, rows: int | None) -> Selection:
    job = small_job(dataset={"rows": rows}, validation={"fraction": 0.3})
    return select_rows(digits.store, digits.manifest, job)


def tables(digits: Digits, split: str, positions: Positions) -> Iterator[pa.Table]:
    for read in plan_reads(digits.manifest, split, positions):
        yield read_group(digits.store, read, COLUMNS)


def row_ids(parts: list[pa.Table]) -> list[int]:
    return [row for part in parts for row in part["row_id"].to_pylist()]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("world_size", WORLDS)
def test_ranks_read_each_row_of_a_split_once_and_no_other(
    digits: Digits, world_size: int, rows: int | None, split: str
):
    selection = selected(digits, rows)
    stored = read_columns(digits.store, digits.manifest, STORED_SPLIT[split], ["row_id"])
    expected = stored["row_id"].to_numpy()[selection.positions[split]].tolist()
    read = []
    for rank in range(world_size):
        shard = selection.shard(split, world_size, rank)
        mine = row_ids(list(tables(digits, split, shard)))
        assert len(mine) == len(shard)
        read += mine
    assert len(set(expected)) == len(expected)
    assert read == expected  # in stored order, rank after rank


def test_images_and_labels_belong_to_their_rows(digits: Digits):
    shard = selected(digits, 101).shard("train", 3, 1)
    table = pa.concat_tables(tables(digits, "train", shard))
    ids = table["row_id"].to_numpy()
    images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 8, 8, 1)
    assert np.array_equal(images, read_images(digits.store, digits.manifest, "train", ids))
    stored = read_columns(digits.store, digits.manifest, "train", ["row_id", "label"])
    label_of = dict(zip(*(column.to_pylist() for column in stored.columns), strict=True))
    assert table["label"].to_pylist() == [label_of[row] for row in ids.tolist()]


def test_only_row_groups_that_overlap_the_shard_are_planned(digits: Digits):
    whole = plan_reads(digits.manifest, "train", np.arange(1437))
    groups = [group for file in digits.manifest.splits["train"].files for group in file.row_groups]
    assert len(whole) == len(groups) >= 16
    assert [len(read.rows) for read in whole] == groups
    few = plan_reads(digits.manifest, "train", np.array([0, 1, groups[0], groups[0] + 2]))
    assert [(read.row_group, read.rows) for read in few] == [(0, (0, 1)), (1, (0, 2))]
    assert [read.size_bytes for read in few] == [2 * 64, 2 * 64]
    assert plan_reads(digits.manifest, "test", np.array([], dtype=np.int64)) == []


def test_validation_is_read_from_the_stored_train_split(digits: Digits):
    (read,) = plan_reads(digits.manifest, "validation", np.array([5]))
    assert "/train/part-" in read.key


def test_only_the_wanted_columns_are_read(digits: Digits):
    (read,) = plan_reads(digits.manifest, "test", np.array([3]))
    table = read_group(digits.store, read, ("row_id",))
    assert table.column_names == ["row_id"]
    assert table.num_rows == 1


def test_a_file_that_is_gone_is_named(digits: Digits, tmp_path: object):
    (read,) = plan_reads(digits.manifest, "test", np.array([3]))
    with pytest.raises(StoreError, match=read.key):
        read_group(Store.open(str(tmp_path)), read, COLUMNS)


def source(digits: Digits, copies: int = 1) -> RowGroups:
    reads = plan_reads(digits.manifest, "train", np.arange(1437)) * copies
    return RowGroups(digits.store, reads, COLUMNS)


def test_small_row_groups_share_a_task(digits: Digits):
    assert len(source(digits).tasks()) == 1


def test_tasks_hold_all_row_groups_in_order_up_to_their_size(digits: Digits):
    many = source(digits, copies=1000)
    tasks = many.tasks()
    assert 2 <= len(tasks) <= 4
    sizes = [sum(read.size_bytes for read in task) for task in tasks]
    assert max(sizes) <= 32 << 20
    assert sum(sizes) == many.estimate_inmemory_data_size() == 1000 * 1437 * 64
    joined = [read for task in tasks for read in task]
    assert joined == plan_reads(digits.manifest, "train", np.arange(1437)) * 1000


def test_rays_tasks_read_what_they_promise(digits: Digits):
    (task,) = source(digits).get_read_tasks(1)
    parts = list(task())
    assert sum(part.num_rows for part in parts) == task.metadata.num_rows == 1437
    assert task.metadata.size_bytes == 1437 * 64
    assert sorted(row_ids(parts)) == list(range(1437))


def test_a_drawn_order_changes_the_order_of_row_groups_alone(digits: Digits):
    read = shard_reader(digits.store, digits.manifest)
    positions = selected(digits, None).shard("train", 2, 0)
    orders = [row_ids(list(read("train", positions, "label", seed))) for seed in (None, 1, 1, 2)]
    assert orders[1] == orders[2]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1
