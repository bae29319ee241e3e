"""Read rows of a prepared dataset: whole columns, single images by row_id."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifarray.data.decode import with_squares
from cifarray.data.manifest import FileManifest, Manifest, repair_command
from cifarray.data.parquet import dataset_schema
from cifarray.errors import DatasetError, KeyMissingError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix


def read_columns(store: Store, manifest: Manifest, split: str, columns: Sequence[str]) -> pa.Table:
    """These columns of a split, rows in stored order. Raises: DatasetError."""
    tables = []
    for file in manifest.splits[split].files:
        with opened(store, manifest, file) as parquet:
            tables.append(parquet.read(columns=list(columns)))
    return pa.concat_tables(tables)


def read_images(
    store: Store,
    manifest: Manifest,
    split: str,
    row_ids: Sequence[int] | NDArray[np.int64],
    side: int | None = None,
) -> NDArray[np.uint8]:
    """The images of these rows, in the order asked for: uint8 [n, height, width, channels].

    Encoded ones become squares of `side`. Reads the row groups that hold them and no others.

    Raises: DatasetError.
    """
    wanted = np.asarray(row_ids, dtype=np.int64)
    stored = read_columns(store, manifest, split, ["row_id"])["row_id"].to_numpy()
    if not np.array_equal(np.sort(stored), np.arange(manifest.splits[split].rows)):
        raise DatasetError(
            f"{manifest.name} {split} does not hold each row_id once; "
            f"run `cifarray data verify {manifest.name}`"
        )
    position_of = np.argsort(stored)
    known = (wanted >= 0) & (wanted < len(position_of))
    if not known.all():
        raise DatasetError(
            f"{manifest.name} {split} has no row_id {wanted[~known][0]}; "
            f"0 to {len(position_of) - 1} are there"
        )
    positions, shape = position_of[wanted], decoded_shape(manifest, side)
    images = np.empty((len(wanted), *shape), dtype=np.uint8)
    order, done = np.argsort(positions), 0
    columns = ["image", "row_id"]
    for table in read_rows(store, manifest, split, positions[order], columns, side):
        images[order[done : done + table.num_rows]] = image_array(table["image"], shape)
        done += table.num_rows
    return images


def read_rows(
    store: Store,
    manifest: Manifest,
    split: str,
    positions: NDArray[np.int64],
    columns: Sequence[str],
    side: int | None = None,
) -> Iterator[pa.Table]:
    """The rows at these ascending positions of a split, a table for each row group that has any.

    `columns` begin with image and end with row_id; encoded images become squares of `side`.

    Raises: DatasetError.
    """
    first = 0
    for file in manifest.splits[split].files:
        low, high = np.searchsorted(positions, (first, first + file.rows))
        if low < high:
            with opened(store, manifest, file) as parquet:
                for table in _read_groups(parquet, file, positions[low:high] - first, columns):
                    yield decoded(table, manifest, side)
        first += file.rows


def _read_groups(
    parquet: pq.ParquetFile,
    file: FileManifest,
    positions: NDArray[np.int64],
    columns: Sequence[str],
) -> Iterator[pa.Table]:
    first = 0
    for group, rows in enumerate(file.row_groups):
        low, high = np.searchsorted(positions, (first, first + rows))
        if low < high:
            table = parquet.read_row_group(group, columns=list(columns))
            yield table.take(positions[low:high] - first)
        first += rows


def decoded_shape(manifest: Manifest, side: int | None) -> tuple[int, int, int]:
    """(H, W, C) of a dataset's images as they are read, encoded ones as squares of `side`."""
    if manifest.shape is not None:
        return manifest.shape
    assert side is not None  # a job on encoded images states it
    return side, side, manifest.channels


def decoded(table: pa.Table, manifest: Manifest, side: int | None) -> pa.Table:
    """A table of images and row_ids with encoded images as pixels. Raises: DatasetError."""
    if manifest.shape is not None:
        return table
    assert side is not None
    return with_squares(table, side, f"{manifest.name} {manifest.digest[:12]}")


def image_array(column: pa.ChunkedArray | pa.Array, shape: Sequence[int]) -> NDArray[np.uint8]:
    """A column of fixed-size images as [rows, height, width, channels]; a view where it can be."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(array):
        return np.empty((0, *shape), dtype=np.uint8)
    image_bytes = int(np.prod(shape))
    pixels = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    start = array.offset * image_bytes
    return pixels[start : start + len(array) * image_bytes].reshape(-1, *shape)


@contextmanager
def opened(
    store: Store, manifest: Manifest, file: FileManifest, *, checked: bool = False
) -> Iterator[pq.ParquetFile]:
    """A file of the dataset, with the schema and row groups that the manifest says.

    `checked` compares the checksum of every page that is read.

    Raises:
        DatasetError: it is missing, is no Parquet file, or is not what the manifest says.
    """
    key = f"{dataset_prefix(manifest.name, manifest.digest)}/{file.key}"
    again = f"run `{repair_command(store, manifest)}` (with the same --archive, if you gave one)"
    try:
        with store.open_input(key) as source:
            parquet = pq.ParquetFile(source, page_checksum_verification=checked)
            differs = _difference(parquet, manifest, file)
            if differs:
                raise DatasetError(f"{key} in {store.uri} {differs}; {again}")
            yield parquet
    except KeyMissingError as error:
        raise DatasetError(f"{key} is not in {store.uri}; {again}") from error
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"{key} in {store.uri} cannot be read ({reason!r}); {again}") from error


def _difference(parquet: pq.ParquetFile, manifest: Manifest, file: FileManifest) -> str | None:
    """The half-sentence that says in what a file is not what the manifest promises."""
    schema = dataset_schema(manifest.shape, coarse=bool(manifest.coarse_classes))
    found = parquet.schema_arrow
    if not found.equals(schema):
        columns = ", ".join(f"{field.name}: {field.type}" for field in found)
        return f"has the columns {columns[:200]!r}, not those of the manifest"
    layout = found.field("image").metadata or {}
    if any(layout.get(key) != value for key, value in schema.field("image").metadata.items()):
        return "says in its image column another shape or layout than the manifest"
    groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    if groups != list(file.row_groups):
        return f"has {sum(groups)} rows in {len(groups)} row groups, not those of the manifest"
    return None
