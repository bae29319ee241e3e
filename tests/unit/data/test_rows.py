"""Reading rows back: by column, by row_id, and only what the manifest promises."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifarray.data.catalog import DIGITS
from cifarray.data.ingest import prepare
from cifarray.data.manifest import load_manifest
from cifarray.data.parquet import image_array, read_columns, read_images
from cifarray.data.readers.digits import read_digits
from cifarray.errors import DatasetError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix

PART = "test/part-00000.parquet"


def test_images_come_in_the_order_asked_for(store: Store) -> None:
    manifest, _ = prepare(store, "digits")
    wanted = [359, 0, 17, 17, 200]
    images = read_images(store, manifest, "test", wanted)
    assert np.array_equal(images, read_digits(DIGITS)["test"].images[wanted])


def test_no_rows_are_no_images(digits_store: Store) -> None:
    manifest = load_manifest(digits_store, "digits")
    assert read_images(digits_store, manifest, "test", []).shape == (0, 8, 8, 1)


@pytest.mark.parametrize("row_id", [-1, 360])
def test_a_row_that_is_not_there_is_refused(row_id: int, digits_store: Store) -> None:
    manifest = load_manifest(digits_store, "digits")
    with pytest.raises(DatasetError, match=f"has no row_id {row_id}; 0 to 359 are there"):
        read_images(digits_store, manifest, "test", [5, row_id])


def test_columns_come_in_stored_order(digits_store: Store) -> None:
    manifest = load_manifest(digits_store, "digits")
    table = read_columns(digits_store, manifest, "train", ["row_id", "label"])
    assert table.column_names == ["row_id", "label"]
    labels = read_digits(DIGITS)["train"].labels
    assert np.array_equal(table["label"].to_numpy(), labels[table["row_id"].to_numpy()])
    assert not np.array_equal(table["row_id"].to_numpy(), np.arange(1437))


def test_an_image_column_becomes_an_array_without_a_copy() -> None:
    pixels = np.arange(5 * 12, dtype=np.uint8)
    column = pa.Array.from_buffers(pa.binary(12), 5, [None, pa.py_buffer(pixels)])
    images = image_array(column.slice(1, 3), (2, 2, 3))
    assert np.array_equal(images, pixels.reshape(5, 2, 2, 3)[1:4])
    assert np.shares_memory(images, pixels)
    two = pa.chunked_array([column.slice(3), column.slice(0, 1)])
    assert np.array_equal(image_array(two, (2, 2, 3)), pixels.reshape(5, 2, 2, 3)[[3, 4, 0]])
    assert image_array(pa.chunked_array([], pa.binary(12)), (2, 2, 3)).shape == (0, 2, 2, 3)


def replace_part(store: Store, change: str) -> None:
    """Put another file in the place of the test split's."""
    manifest = load_manifest(store, "digits")
    key = f"{dataset_prefix('digits', manifest.digest)}/{PART}"
    table = pq.read_table(store.path(key))
    image = table.schema.field("image")
    if change == "columns":
        table = table.drop_columns(["label"])
    elif change == "type":
        table = table.set_column(1, "label", table["label"].cast(pa.int64()))
    elif change == "shape":
        field = image.with_metadata({**image.metadata, b"shape": b"[4, 16, 1]"})
        table = table.cast(table.schema.set(0, field))
    elif change == "rows":
        table = table.slice(1)
    if change == "text":
        store.write(key, b"PAR1 but not really PAR1")
    elif change == "missing":
        store.delete([key])
    else:
        pq.write_table(table, store.path(key), row_group_size=23)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("columns", "has the columns 'image: fixed_size_binary"),
        ("type", "label: int64"),
        ("shape", "whose shape or layout differs"),
        ("rows", "has 359 rows in 16 row groups"),
        ("text", "cannot be read"),
        ("missing", "is not in"),
    ],
)
def test_a_file_that_is_not_what_the_manifest_says_is_refused(
    change: str, reason: str, digits_store: Store
) -> None:
    replace_part(digits_store, change)
    manifest = load_manifest(digits_store, "digits")
    with pytest.raises(DatasetError, match=reason) as caught:
        read_columns(digits_store, manifest, "test", ["row_id"])
    assert "run `cifarray data prepare digits" in str(caught.value)


def test_what_a_damaged_file_tells_to_run_mends_it(digits_store: Store) -> None:
    manifest = load_manifest(digits_store, "digits")
    file = manifest.splits["test"].files[0]
    key = f"{dataset_prefix('digits', manifest.digest)}/{file.key}"
    digits_store.write(key, bytes(file.size_bytes))  # of the size that the manifest says
    with pytest.raises(DatasetError, match=r"run `cifarray data prepare digits .* --again`"):
        read_columns(digits_store, manifest, "test", ["row_id"])
    prepare(digits_store, "digits", again=True)
    assert read_columns(digits_store, manifest, "test", ["row_id"]).num_rows == 360
