"""The Parquet layout of a dataset: schema, how rows are cut into files and row groups, writing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FILE_BYTES = 64 << 20
"""Images per file, about: large datasets get files of 32 to 96 MiB."""
ROW_GROUP_BYTES = 8 << 20
"""Images per row group at most, so that a worker reads little more than its own rows."""
ROW_GROUP_ENCODED = 256
"""Rows per row group at most of encoded images, which are many times larger when decoded."""
LEAST_ROW_GROUPS = 16
"""Of a split: with fewer, the shards of a small dataset could not be cut apart."""


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
        """Name and rows of each of the archive's parts; empty where it names none."""

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
