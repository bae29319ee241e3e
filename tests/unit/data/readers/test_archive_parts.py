"""The archive's parts: listed with their row_ids, chosen by name, added to what lacks them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifarray.data.catalog import CIFAR10, DATASETS
from cifarray.data.ingest import prepare
from cifarray.data.manifest import ArchivePart, Manifest, load_manifest
from cifarray.data.parquet import read_columns, read_images
from cifarray.data.readers.cifar import read_cifar
from cifarray.data.split import Positions, Selection, select_rows
from cifarray.errors import DatasetError, JobError
from cifarray.store import Store
from cifarray.store.layout import manifest_key
from tests.archives import write_cifar10, write_cifar100, write_fashion_mnist
from tests.digit_sessions import small_job


@pytest.fixture(scope="module", params=["real", "made"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of CIFAR-10's layout, of its own images where they are there."""
    if request.param == "real":
        folder: Path = request.getfixturevalue("test_data")
        return folder / "cifar-10-python.subset.tar.gz"
    return write_cifar10(tmp_path_factory.mktemp("made") / "cifar10.tar.gz")


@pytest.fixture(scope="module")
def prepared(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Manifest]:
    """CIFAR-10 in a store that the tests only read."""
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    return store, prepare(store, "cifar10", str(archive))[0]


def select(prepared: tuple[Store, Manifest], **sections: Any) -> Selection:
    dataset = {"name": "cifar10", "rows": None, **sections.get("dataset", {})}
    validation = sections.get("validation", {})
    job = small_job().model_dump(mode="json") | {"dataset": dataset, "validation": validation}
    return select_rows(*prepared, small_job().model_validate(job))


def row_ids(prepared: tuple[Store, Manifest], positions: Positions) -> set[int]:
    stored = read_columns(*prepared, "train", ["row_id"])["row_id"].to_numpy()
    return set(stored[positions].tolist())


def rows_of(manifest: Manifest, number: int) -> set[int]:
    part = manifest.splits["train"].archive_parts[number - 1]
    return set(range(part.first_row_id, part.first_row_id + part.rows))


def without_parts(store: Store, manifest: Manifest) -> bytes:
    """Write the manifest as it was before parts were listed; its bytes."""
    key = manifest_key(manifest.name, manifest.digest)
    content = store.read_json(key)
    for split in content["splits"].values():
        del split["archive_parts"]
    store.write_json(key, content)
    return store.read(key)


def test_the_parts_of_cifar10_are_its_five_batches(prepared: tuple[Store, Manifest], archive: Path):
    parts = prepared[1].splits["train"].archive_parts
    assert [part.name for part in parts] == [f"data_batch_{number}" for number in range(1, 6)]
    assert tuple(part.name for part in parts) == CIFAR10.train_parts
    assert sorted(set().union(*(rows_of(prepared[1], n) for n in range(1, 6)))) == list(
        range(prepared[1].splits["train"].rows)
    )
    (test,) = prepared[1].splits["test"].archive_parts
    assert test == ArchivePart(name="test_batch", first_row_id=0, rows=test.rows)
    arrays = read_cifar(CIFAR10, archive)["train"]
    second = parts[1]
    rows = np.arange(second.first_row_id, second.first_row_id + second.rows)
    assert arrays.parts[1] == ("data_batch_2", second.rows)
    images = read_images(*prepared, "train", rows)
    assert np.array_equal(images, arrays.images[rows])


@pytest.mark.parametrize("name", ["cifar100", "fashion-mnist", "digits"])
def test_train_of_other_datasets_is_one_part(name: str, local_store: Store, tmp_path: Path):
    writers = {"cifar100": write_cifar100, "fashion-mnist": write_fashion_mnist}
    archive = str(writers[name](tmp_path / "archive", 1, 1)) if name in writers else None
    manifest, _ = prepare(local_store, name, archive)
    rows = manifest.splits["train"].rows
    (part,) = manifest.splits["train"].archive_parts
    assert part == ArchivePart(name="train", first_row_id=0, rows=rows)
    assert DATASETS[name].train_parts == ("train",)


def test_a_job_trains_on_one_part_and_validates_on_another(prepared: tuple[Store, Manifest]):
    selection = select(
        prepared,
        dataset={"archive_part": "data_batch_1"},
        validation={"archive_part": "data_batch_2"},
    )
    assert row_ids(prepared, selection.positions["train"]) == rows_of(prepared[1], 1)
    assert set(selection.validation_row_ids) == rows_of(prepared[1], 2)
    assert len(selection.positions["test"]) == prepared[1].splits["test"].rows
    assert all(np.all(np.diff(rows) > 0) for rows in selection.positions.values())


def test_a_part_that_validates_is_left_out_of_train(prepared: tuple[Store, Manifest]):
    selection = select(prepared, validation={"archive_part": "data_batch_5"})
    expected = set().union(*(rows_of(prepared[1], number) for number in range(1, 5)))
    assert row_ids(prepared, selection.positions["train"]) == expected


def test_a_fraction_is_taken_from_the_part_that_trains(prepared: tuple[Store, Manifest]):
    selection = select(prepared, dataset={"archive_part": "data_batch_3"})
    train = row_ids(prepared, selection.positions["train"])
    assert train | set(selection.validation_row_ids) == rows_of(prepared[1], 3)
    assert not train & set(selection.validation_row_ids)


def test_rows_are_the_first_of_the_part_and_leave_the_one_that_validates_whole(
    prepared: tuple[Store, Manifest],
):
    selection = select(
        prepared,
        dataset={"archive_part": "data_batch_2", "rows": 7},
        validation={"archive_part": "data_batch_1"},
    )
    expected = sorted(rows_of(prepared[1], 2))[:7]
    assert sorted(row_ids(prepared, selection.positions["train"])) == expected
    assert set(selection.validation_row_ids) == rows_of(prepared[1], 1)


def test_an_unknown_part_is_refused_with_the_nearest(prepared: tuple[Store, Manifest]):
    for section in ("dataset", "validation"):
        with pytest.raises(JobError, match=r"no archive part 'data_batch_6'; did you mean data_ba"):
            select(prepared, **{section: {"archive_part": "data_batch_6"}})


def test_a_part_that_leaves_nothing_to_train_on_is_refused(local_store: Store):
    manifest, _ = prepare(local_store, "digits")
    job = small_job().model_dump(mode="json") | {"validation": {"archive_part": "train"}}
    with pytest.raises(JobError, match=r"archive_part train leaves 0 rows for train and 1437 for"):
        select_rows(local_store, manifest, small_job().model_validate(job))


def test_an_older_manifest_loads_and_preparing_again_adds_the_parts(
    archive: Path, local_store: Store
):
    manifest, _ = prepare(local_store, "cifar10", str(archive))
    before = {entry.key: local_store.read(entry.key) for entry in local_store.list("")}
    assert without_parts(local_store, manifest) not in before.values()
    older = (
        local_store,
        Manifest.model_validate(local_store.read_json(manifest_key("cifar10", manifest.digest))),
    )
    whole = select(older)
    with pytest.raises(
        JobError, match="by a version that did not record the archive's parts; run `cifarray data"
    ):
        select(older, dataset={"archive_part": "data_batch_1"})
    assert prepare(local_store, "cifar10", str(archive)) == (manifest, True)
    assert {entry.key: local_store.read(entry.key) for entry in local_store.list("")} == before
    assert whole.validation_sha256 == select((local_store, manifest)).validation_sha256
    assert prepare(local_store, "cifar10", str(archive)) == (manifest, False)


def test_an_older_manifest_of_one_part_needs_no_preparing(digits_store: Store):
    manifest, _ = prepare(digits_store, "digits")
    without_parts(digits_store, manifest)
    older, written = prepare(digits_store, "digits")
    assert not written
    assert older.splits["train"].archive_parts == ()
    job = small_job(dataset={"archive_part": "train"})
    assert select_rows(digits_store, older, job).shard_rows("train", 2) == [32, 32]
    with pytest.raises(JobError, match=r"digits has no archive part 'data_batch_1'"):
        select_rows(digits_store, older, small_job(dataset={"archive_part": "data_batch_1"}))


@pytest.mark.parametrize(
    "parts",
    [
        [{"name": "a", "first_row_id": 0, "rows": 1436}],
        [{"name": "a", "first_row_id": 1, "rows": 1437}],
        [
            {"name": "a", "first_row_id": 0, "rows": 1400},
            {"name": "b", "first_row_id": 0, "rows": 37},
        ],
    ],
)
def test_parts_that_do_not_cover_the_split_are_refused(
    parts: list[dict[str, Any]], digits_store: Store
):
    manifest, _ = prepare(digits_store, "digits")
    key = manifest_key("digits", manifest.digest)
    content = digits_store.read_json(key)
    content["splits"]["train"]["archive_parts"] = parts
    digits_store.write_json(key, content)
    with pytest.raises(DatasetError, match=r"is damaged .*archive part"):
        load_manifest(digits_store, "digits")
