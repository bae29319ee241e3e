"""Rows of some classes: of every split theirs and no others, balanced, in the archive's order."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import read_columns
from cifarray.data.split import STORED_SPLIT, Selection, select_rows
from cifarray.store import Store
from tests.archives import write_cifar100
from tests.digit_sessions import small_job


@pytest.fixture(scope="module", params=["real", "made"])
def prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, Manifest]:
    """CIFAR-100 in a store, with its own images where they are there."""
    folder = tmp_path_factory.mktemp("cifar100")
    if request.param == "real":
        archive = request.getfixturevalue("test_data") / "cifar-100-python.subset.tar.gz"
    else:
        archive = write_cifar100(folder / "cifar100.tar.gz", 8, 2)
    store = Store.open(str(folder / "store"))
    return store, prepare(store, "cifar100", str(archive))[0]


def select(prepared: tuple[Store, Manifest], fraction: float = 0.25, **dataset: Any) -> Selection:
    fields = {"name": "cifar100", "rows": None, **dataset}
    job = small_job(dataset=fields, validation={"fraction": fraction})
    return select_rows(*prepared, job)


def column(
    prepared: tuple[Store, Manifest], selection: Selection, split: str, name: str = "label"
) -> NDArray[np.int64]:
    stored = read_columns(*prepared, STORED_SPLIT[split], [name])[name].to_numpy()
    values: NDArray[np.int64] = stored[selection.positions[split]].astype(np.int64)
    return values


def test_every_split_has_all_rows_of_the_first_classes_and_no_others(
    prepared: tuple[Store, Manifest],
):
    selection = select(prepared, classes=25)
    counts = {
        split: np.bincount(column(prepared, selection, split), minlength=100)
        for split in STORED_SPLIT
    }
    for split, found in (
        ("train", counts["train"] + counts["validation"]),
        ("test", counts["test"]),
    ):
        assert found[:25].tolist() == list(prepared[1].splits[split].class_counts[:25])
        assert not found[25:].any()
    assert np.ptp(counts["validation"][:25]) <= 1
    assert all(np.all(np.diff(rows) > 0) for rows in selection.positions.values())


def test_classes_by_name_select_what_their_number_selects(prepared: tuple[Store, Manifest]):
    by_number = select(prepared, classes=3)
    by_name = select(prepared, classes=list(prepared[1].classes[:3]))
    for split in STORED_SPLIT:
        assert np.array_equal(by_number.positions[split], by_name.positions[split])
    assert by_number.validation_sha256 == by_name.validation_sha256


def test_all_classes_by_number_select_every_row(prepared: tuple[Store, Manifest]):
    everything, counted = select(prepared), select(prepared, classes=100)
    for split in STORED_SPLIT:
        assert np.array_equal(everything.positions[split], counted.positions[split])


def test_coarse_classes_select_the_rows_of_their_fine_ones(prepared: tuple[Store, Manifest]):
    selection = select(prepared, labels="coarse", classes=["trees", "fish"])
    manifest = prepared[1]
    wanted = {manifest.coarse_classes.index(name) for name in ("trees", "fish")}
    for split in STORED_SPLIT:
        assert set(column(prepared, selection, split, "coarse_label")) == wanted
        fine = set(column(prepared, selection, split))
        assert {manifest.fine_to_coarse[label] for label in fine} == wanted
        assert len(fine) == 10


def test_rows_count_those_of_the_chosen_classes(prepared: tuple[Store, Manifest]):
    selection = select(prepared, classes=4, rows=20)
    chosen = np.concatenate([selection.positions[split] for split in ("train", "validation")])
    stored = read_columns(*prepared, "train", ["row_id", "label"])
    row_ids, labels = (stored[name].to_numpy() for name in ("row_id", "label"))
    assert sorted(row_ids[chosen]) == sorted(row_ids[labels < 4])[:20]
