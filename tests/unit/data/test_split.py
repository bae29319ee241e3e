"""Which rows train, which validate: seeded, balanced, disjoint, and the same for ever."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import read_columns
from cifarray.data.split import Selection, choose_validation, select_rows, shard_range
from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.store import Store
from tests.digit_sessions import Digits, small_job
from tests.golden_files import Golden

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def row_ids(digits: Digits) -> NDArray[np.int64]:
    """The row_ids of train in stored order."""
    return read_columns(digits.store, digits.manifest, "train", ["row_id"])["row_id"].to_numpy()


@pytest.fixture(scope="module")
def labels(digits: Digits) -> NDArray[np.int64]:
    """The labels of train in stored order."""
    return read_columns(digits.store, digits.manifest, "train", ["label"])["label"].to_numpy()


def whole_job(fraction: float = 0.1, seed: int = 0, rows: int | None = None) -> Job:
    return small_job(dataset={"rows": rows}, validation={"fraction": fraction, "seed": seed})


def select(digits: Digits, **fields: Any) -> Selection:
    return select_rows(digits.store, digits.manifest, whole_job(**fields))


@pytest.mark.parametrize("fields", [{}, {"fraction": 0.5, "seed": 3}, {"rows": 101}])
def test_train_and_validation_are_disjoint_and_together_all_of_train(
    digits: Digits, row_ids: NDArray[np.int64], fields: dict[str, Any]
):
    selection = select(digits, **fields)
    train, validation = (selection.positions[split] for split in SPLITS[:2])
    assert not set(train) & set(validation)
    chosen = np.flatnonzero(row_ids < fields.get("rows", len(row_ids)))
    assert np.array_equal(np.sort(np.concatenate([train, validation])), chosen)
    assert np.array_equal(np.sort(row_ids[validation]), selection.validation_row_ids)


@pytest.mark.parametrize("split", SPLITS)
def test_positions_ascend(digits: Digits, split: str):
    positions = select(digits).positions[split]
    assert len(positions)
    assert np.all(np.diff(positions) > 0)


def test_test_is_whole_whatever_the_job_says(digits: Digits):
    for fields in ({}, {"rows": 50}, {"seed": 4}):
        assert np.array_equal(select(digits, **fields).positions["test"], np.arange(360))


@pytest.mark.parametrize("fraction", [0.05, 0.1, 1 / 3, 0.5])
def test_every_class_gives_the_same_fraction(
    digits: Digits, labels: NDArray[np.int64], fraction: float
):
    validation = select(digits, fraction=fraction).positions["validation"]
    whole, held_back = (np.bincount(rows, minlength=10) for rows in (labels, labels[validation]))
    assert np.all(np.abs(held_back - whole * fraction) < 1)
    assert len(validation) == round(len(labels) * fraction)


def test_rows_are_the_first_of_the_archive(digits: Digits, row_ids: NDArray[np.int64]):
    selection = select(digits, rows=101)
    chosen = np.concatenate([selection.positions[split] for split in SPLITS[:2]])
    assert np.array_equal(np.sort(row_ids[chosen]), np.arange(101))


def test_more_rows_than_there_are_means_all(digits: Digits):
    selections = [select(digits, rows=rows) for rows in (None, 10**6)]
    assert selections[0].validation_sha256 == selections[1].validation_sha256


def test_the_split_depends_on_seed_and_fraction_and_nothing_else(digits: Digits, tmp_path: Path):
    first = select(digits, seed=1)
    elsewhere = Store.open(str(tmp_path))
    again = select_rows(elsewhere, prepare(elsewhere, "digits")[0], whole_job(seed=1))
    other_job = whole_job(seed=1).model_copy(update={"seed": 9, "name": "other"})
    for same in (again, select_rows(digits.store, digits.manifest, other_job)):
        assert np.array_equal(same.validation_row_ids, first.validation_row_ids)
    for fields in ({"seed": 2}, {"seed": 1, "fraction": 0.2}):
        assert select(digits, **fields).validation_sha256 != first.validation_sha256


def test_another_seed_holds_back_about_as_many_old_rows_as_chance_would(digits: Digits):
    one, two = (set(select(digits, fraction=0.5, seed=seed).validation_row_ids) for seed in (0, 1))
    assert 0.4 < len(one & two) / len(one) < 0.6


def test_a_larger_fraction_holds_back_what_a_smaller_one_did(digits: Digits):
    small, large = (set(select(digits, fraction=f).validation_row_ids) for f in (0.1, 0.3))
    assert small < large


def test_the_recorded_hash_is_that_of_the_sorted_row_ids(digits: Digits):
    selection = select(digits)
    text = json.dumps(sorted(int(row) for row in selection.validation_row_ids)).replace(" ", "")
    assert selection.validation_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_validation_rows_of_digits_never_change(golden: Golden, digits: Digits):
    found = {
        f"fraction {fraction}, seed {seed}, rows {rows}": select(
            digits, fraction=fraction, seed=seed, rows=rows
        ).validation_sha256
        for fraction, seed, rows in itertools.product((0.1, 0.2), (0, 1), (None, 80))
    }
    golden.check_json("validation_rows.json", found)


@pytest.mark.parametrize(("fraction", "rows"), [(1e-6, None), (0.999999, None), (0.1, 3)])
def test_a_split_with_an_empty_part_is_refused(digits: Digits, fraction: float, rows: int | None):
    with pytest.raises(JobError, match=r"validation\.fraction .* choose another fraction"):
        select(digits, fraction=fraction, rows=rows)


def test_classes_too_small_for_the_fraction_share_what_is_due():
    labels = np.repeat(np.arange(20), 3)
    marked = choose_validation(np.arange(60), labels, 0.1, 0)
    assert marked.sum() == 6
    assert np.bincount(labels[marked], minlength=20).max() == 1


def test_the_order_in_which_rows_are_stored_does_not_matter():
    labels = np.arange(100) % 7
    order = np.random.default_rng(0).permutation(100)
    in_order = choose_validation(np.arange(100), labels, 0.3, 5)
    shuffled = choose_validation(order, labels[order], 0.3, 5)
    assert np.array_equal(in_order[order], shuffled)


def combinations() -> list[tuple[int, int]]:
    return list(itertools.product((1, 2, 3, 7, 10, 100, 101, 1293, 4999), (1, 2, 3, 4, 7)))


def test_ranges_cover_all_rows_in_order_and_differ_by_at_most_one():
    for rows, world_size in combinations():
        ranges = [shard_range(rows, world_size, rank) for rank in range(world_size)]
        assert [low for low, _ in ranges] == [0, *(high for _, high in ranges[:-1])]
        assert ranges[-1][1] == rows
        sizes = [high - low for low, high in ranges]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_shards_of_every_split_differ_by_at_most_one_row_and_lose_none(
    digits: Digits, world_size: int, split: str
):
    selection = select(digits, rows=101)
    shards = [selection.shard(split, world_size, rank) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(shards), selection.positions[split])
    assert [len(shard) for shard in shards] == selection.shard_rows(split, world_size)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_shard_depends_on_digest_selection_split_world_and_rank_alone(
    digits: Digits, tmp_path: Path
):
    elsewhere = Store.open(str(tmp_path))
    manifest: Manifest = prepare(elsewhere, "digits")[0]
    assert manifest.digest == digits.manifest.digest
    other_job = small_job(
        dataset={"rows": 101},
        validation={"fraction": 0.1},
        seed=5,
        model={"name": "resnet18"},
        train={"global_batch_size": 7},
    )
    here = select(digits, rows=101)
    there = select_rows(elsewhere, manifest, other_job)
    for split in SPLITS:
        for rank in range(3):
            assert np.array_equal(here.shard(split, 3, rank), there.shard(split, 3, rank))
