"""The Parquet files of a dataset: their schema, how rows are cut into them, writing and reading."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifarray.data.decode import with_squares
from cifarray.data.manifest import FileManifest, Manifest, repair_command
from cifarray.errors import DatasetError, KeyMissingError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix

FILE_BYTES = 64 << 20
"""Images per file, about: large datasets get files of 32 to 96 MiB."""
ROW_GROUP_BYTES = 8 << 20
"""Images per row group at most, so that a worker reads little more than its own rows."""
ROW_GROUP_ENCODED = 256
"""Rows per row group at most of encoded images, which are many times larger when decoded."""
LEAST_ROW_GROUPS = 16
"""Of a split: with fewer, a small dataset could not be divided among workers."""


class SplitRows(Protocol):
    """The rows of a split in the archive's order, as they can be written."""

    @property
    def labels(self) -> NDArray[np.int16]:
        """Of each row."""

    @property
    def coarse_labels(self) -> NDArray[np.int16] | None:
        """Of each row, where there are any."""

    @property
    def parts(self) -> Sequence[tuple[str, int]]:
        """Name and rows of each of the archive's parts; empty if it names none."""

    @property
    def rows(self) -> int:
        """How many."""

    @property
    def image_bytes(self) -> int:
        """Of one image as it is stored, on average."""

    def column(self, row_ids: NDArray[np.int64]) -> pa.Array:
        """The images of these rows as they are stored."""


def dataset_schema(shape: Sequence[int] | None, coarse: bool) -> pa.Schema:
    """Columns image, label, coarse_label where there is one, row_id; none null.

    `image` is uint8 pixels (HWC), or, with None for a shape, the bytes of a JPEG or PNG file.
    """
    layout = {"layout": "encoded"}
    if shape is not None:
        layout = {"shape": json.dumps(list(shape)), "layout": "HWC", "dtype": "uint8"}
    kind = pa.binary() if shape is None else pa.binary(int(np.prod(shape)))
    fields = [
        pa.field("image", kind, nullable=False, metadata=layout),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("coarse_label", pa.int16(), nullable=False),
        pa.field("row_id", pa.int64(), nullable=False),
    ]
    return pa.schema([field for field in fields if coarse or field.name != "coarse_label"])


def plan_files(rows: int, image_bytes: int, *, encoded: bool = False) -> list[list[int]]:
    """Rows of each row group of each file; row groups, and files, differ by one at most."""
    groups = max(LEAST_ROW_GROUPS, -(-rows * image_bytes // ROW_GROUP_BYTES))
    if encoded:
        groups = max(groups, -(-rows // ROW_GROUP_ENCODED))
    groups = min(rows, groups)
    files = min(groups, max(1, round(rows * image_bytes / FILE_BYTES)))
    sizes = _even_parts(rows, groups)
    plan, first = [], 0
    for count in _even_parts(groups, files):
        plan.append(sizes[first : first + count])
        first += count
    return plan


def _even_parts(whole: int, parts: int) -> list[int]:
    return [whole // parts + (part < whole % parts) for part in range(parts)]


def write_part(
    path: Path,
    schema: pa.Schema,
    split: SplitRows,
    row_ids: NDArray[np.int64],
    row_groups: Sequence[int],
) -> None:
    """Write these rows, in this order, as one Parquet file; equal rows give equal bytes."""
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=False,
        write_statistics=["label", "row_id"],
        write_page_checksum=True,
    ) as writer:
        first = 0
        for rows in row_groups:
            table = _table(schema, split, row_ids[first : first + rows])
            writer.write_table(table, row_group_size=rows)
            first += rows


def _table(schema: pa.Schema, split: SplitRows, row_ids: NDArray[np.int64]) -> pa.Table:
    columns = {
        "image": split.column(row_ids),
        "label": pa.array(split.labels[row_ids]),
        "row_id": pa.array(row_ids),
    }
    if split.coarse_labels is not None:
        columns["coarse_label"] = pa.array(split.coarse_labels[row_ids])
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


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
            f"{manifest.name} {split} does not have each row_id exactly once; run `cifarray data "
            f"verify {manifest.name}`"
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
    again = f"run `{repair_command(store, manifest)}` (with the same --archive, if you used one)"
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
    """The part of a message that says how a file differs from the manifest."""
    schema = dataset_schema(manifest.shape, coarse=bool(manifest.coarse_classes))
    found = parquet.schema_arrow
    if not found.equals(schema):
        columns = ", ".join(f"{field.name}: {field.type}" for field in found)
        return f"has the columns {columns[:200]!r}, which differ from the manifest"
    layout = found.field("image").metadata or {}
    if any(layout.get(key) != value for key, value in schema.field("image").metadata.items()):
        return "has an image column whose shape or layout differs from the manifest"
    groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    if groups != list(file.row_groups):
        return (
            f"has {sum(groups)} rows in {len(groups)} row groups, which differs from the manifest"
        )
    return None
