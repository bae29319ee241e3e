"""Inspect and verify: they count what is there, and find every kind of damage."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifarray.data.catalog import CIFAR100
from cifarray.data.ingest import prepare
from cifarray.data.inspect import SplitAudit, inspect_dataset, sample_grid
from cifarray.data.manifest import load_manifest
from cifarray.data.verify import verify_dataset
from cifarray.errors import DatasetError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix, manifest_key
from tests.archives import dump, write_cifar100


def part_key(store: Store, name: str, split: str) -> str:
    digest = load_manifest(store, name).digest
    return f"{dataset_prefix(name, digest)}/{split}/part-00000.parquet"


def test_inspect_counts_what_scikit_learn_holds(store: Store) -> None:
    from sklearn.datasets import load_digits

    manifest, _ = prepare(store, "digits")
    findings = inspect_dataset(store, "digits")
    bunch = load_digits()
    splits = findings["splits"]
    counts = np.array([splits[split]["class_counts"] for split in ("train", "test")])
    assert counts.sum(axis=0).tolist() == np.bincount(bunch.target).tolist()
    assert [splits[split]["rows"] for split in splits] == [1437, 360]
    assert splits["train"]["min"] == 0
    assert splits["train"]["max"] == 255
    assert splits["train"]["channel_mean"] == list(manifest.mean)
    assert splits["train"]["channel_std"] == list(manifest.std)
    for split in splits.values():
        assert split["missing_images"] == split["undecodable_images"] == 0
    assert findings["duplicates"]["groups"] == 0
    assert findings["classes"] == [str(digit) for digit in range(10)]
    json.dumps(findings)


def images(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 3072), dtype=np.uint8)


def batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    coarse = [CIFAR100.fine_to_coarse[label] for label in labels]
    return dump({"data": pixels, "fine_labels": labels, "coarse_labels": coarse})


def test_duplicates_within_and_across_splits_are_found(local_store: Store, tmp_path: Path) -> None:
    train, test = images(6, seed=1), images(4, seed=2)
    train[3] = train[5] = train[0]
    test[1] = train[0]
    test[3] = test[2]
    path = write_cifar100(
        tmp_path / "a.tar.gz",
        1,
        1,
        train=batch(train, [0, 1, 2, 0, 4, 7]),
        test=batch(test, [0, 0, 3, 3]),
    )
    prepare(local_store, "cifar100", str(path))
    duplicates = inspect_dataset(local_store, "cifar100")["duplicates"]
    assert duplicates["within"] == {"train": 2, "test": 1}
    assert duplicates["test_rows_also_in_train"] == 1
    assert duplicates["groups"] == 2
    assert duplicates["groups_with_different_labels"] == 1
    assert duplicates["listed_groups"][0] == [
        {"split": "test", "row_id": 1, "label": "apple"},
        {"split": "train", "row_id": 0, "label": "apple"},
        {"split": "train", "row_id": 3, "label": "apple"},
        {"split": "train", "row_id": 5, "label": "beetle"},
    ]


def test_inspect_counts_missing_and_undecodable_images(digits_store: Store) -> None:
    digits_store.delete([part_key(digits_store, "digits", "test")])
    key = part_key(digits_store, "digits", "train")
    column = pq.ParquetFile(digits_store.path(key)).metadata.row_group(2).column(0)
    damaged = bytearray(digits_store.read(key))
    damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    digits_store.write(key, bytes(damaged))
    splits = inspect_dataset(digits_store, "digits")["splits"]
    assert splits["test"]["missing_images"] == splits["test"]["rows"] == 360
    assert splits["test"]["min"] is None
    assert splits["train"]["undecodable_images"] == 90
    assert splits["train"]["rows"] == 1437
    assert sum(splits["train"]["class_counts"]) == 1437 - 90


def test_a_file_that_is_no_parquet_counts_as_undecodable(digits_store: Store) -> None:
    digits_store.write(part_key(digits_store, "digits", "test"), b"something else")
    splits = inspect_dataset(digits_store, "digits")["splits"]
    assert splits["test"]["undecodable_images"] == 360


@pytest.mark.parametrize("function", [inspect_dataset, verify_dataset, sample_grid])
def test_a_dataset_that_was_never_prepared_is_one_sentence(
    function: object, local_store: Store
) -> None:
    assert callable(function)
    with pytest.raises(DatasetError, match="run `cifarray data prepare cifar10 --store"):
        function(local_store, "cifar10")


def test_a_sound_dataset_verifies(store: Store, cifar100_archive: Path) -> None:
    prepare(store, "cifar100", str(cifar100_archive))
    assert verify_dataset(store, "cifar100") == []


def test_verify_finds_a_flipped_byte(digits_store: Store) -> None:
    key = part_key(digits_store, "digits", "train")
    data = bytearray(digits_store.read(key))
    data[len(data) // 2] ^= 1
    digits_store.write(key, bytes(data))
    (problem,) = verify_dataset(digits_store, "digits")
    assert problem.startswith(f"{key} has sha256 ")


def test_verify_finds_a_missing_and_a_short_file(digits_store: Store) -> None:
    train, test = (part_key(digits_store, "digits", split) for split in ("train", "test"))
    digits_store.delete([train])
    size = digits_store.size(test)
    digits_store.write(test, digits_store.read(test)[:-1])
    assert verify_dataset(digits_store, "digits") == [
        f"{train} is missing",
        f"{test} has {size - 1} bytes, but the manifest says {size}",
    ]


def change_manifest(store: Store, split: str, **fields: object) -> None:
    """Let the manifest say something else of a split."""
    key = manifest_key("digits", load_manifest(store, "digits").digest)
    content = store.read_json(key)
    content["splits"][split] |= fields
    store.write_json(key, content)


def test_verify_holds_class_counts_against_the_rows(digits_store: Store) -> None:
    counts = list(load_manifest(digits_store, "digits").splits["test"].class_counts)
    counts[0], counts[2] = counts[2], counts[0]
    change_manifest(digits_store, "test", class_counts=counts)
    (problem,) = verify_dataset(digits_store, "digits")
    assert problem.endswith("has different row counts per class than the manifest")


def rewrite(store: Store, column: str, values: list[int]) -> None:
    """Write the test split with another column, and let the manifest bear it out."""
    manifest = load_manifest(store, "digits")
    key = part_key(store, "digits", "test")
    table = pq.read_table(store.path(key))
    place = table.schema.get_field_index(column)
    field = table.schema.field(column)
    table = table.set_column(place, field, pa.array(values, field.type))
    pq.write_table(table, store.path(key), row_group_size=table.num_rows)
    data = store.read(key)
    file = manifest.splits["test"].files[0].model_dump(mode="json") | {
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "row_groups": [table.num_rows],
    }
    change_manifest(store, "test", files=[file])


def test_verify_finds_a_row_that_is_there_twice(digits_store: Store) -> None:
    rewrite(digits_store, "row_id", [0, *range(359)])
    (problem,) = verify_dataset(digits_store, "digits")
    assert problem.endswith("does not have each row_id from 0 to 359 exactly once")


def test_verify_and_inspect_find_labels_that_are_no_class(digits_store: Store) -> None:
    rewrite(digits_store, "label", [10, -1, *([0] * 358)])
    (problem,) = verify_dataset(digits_store, "digits")
    assert problem.endswith("has labels that are not classes of the manifest")
    assert inspect_dataset(digits_store, "digits")["splits"]["test"]["unknown_labels"] == 2


def test_rows_that_lack_something_are_rows_whose_pixels_nobody_counts(digits_store: Store) -> None:
    audit = SplitAudit(load_manifest(digits_store, "digits"))
    images = pa.chunked_array([pa.array([bytes([7]) * 64], pa.binary(64))])
    audit.add(np.array([3], dtype=np.int16), images)
    audit.leave_out(2, {"image": 2, "label": 1})
    audit.leave_out(1, {"image": 0, "label": 1})
    figures = audit.figures()
    assert figures["rows"] == 4
    assert (figures["null_images"], figures["null_labels"]) == (2, 2)
    assert figures["pixels"][0]["count"] == 64


def test_the_sample_grid_shows_each_class_with_its_first_images(digits_store: Store) -> None:
    picture = Image.open(io.BytesIO(sample_grid(digits_store, "digits")))
    assert picture.format == "PNG"
    assert picture.width >= 10 * 56
    assert picture.height >= 10 * 56
    assert len(picture.getcolors(1 << 16) or []) > 16


def test_the_grid_of_a_hundred_classes_stays_in_proportion(
    local_store: Store, cifar100_archive: Path
) -> None:
    prepare(local_store, "cifar100", str(cifar100_archive))
    picture = Image.open(io.BytesIO(sample_grid(local_store, "cifar100")))
    assert 0.5 < picture.width / picture.height < 2
