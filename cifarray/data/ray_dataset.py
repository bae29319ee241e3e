"""Reads a worker's rows with Ray Data: the row groups that overlap its range, in a fixed order."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.data._internal.stats import get_or_create_stats_actor
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from cifarray.data.decode import with_squares
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import decoded_shape
from cifarray.data.split import STORED_SPLIT, Positions
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix

TASK_BYTES = 32 << 20
"""About how many bytes of images one Ray task reads."""
TASK_CPUS = 0.25
"""Reading is mostly waiting; a fraction of a CPU lets it run next to workers on a small machine."""


def keep_shared_actors_here() -> None:
    """Create the actors that all Ray Data readers share on the node of this process.

    They outlive the run, on the node of the first process that asks for them. A worker's node with
    them would never be removed by the autoscaler.
    """
    get_or_create_stats_actor()
    get_or_create_autoscaling_coordinator()


@dataclass(frozen=True)
class GroupRead:
    """Rows to take from one row group."""

    key: str
    row_group: int
    rows: tuple[int, ...]
    """Places within the row group, ascending."""
    size_bytes: int
    """Of these rows' images in memory."""
    side: int | None = None
    """Encoded images become squares of it; None of those that are pixels already."""


def plan_reads(
    manifest: Manifest, split: str, positions: Positions, side: int | None = None
) -> list[GroupRead]:
    """The row groups that hold these positions, in stored order, and the rows to take from each.

    Encoded images become squares of `side`.
    """
    prefix = dataset_prefix(manifest.name, manifest.digest)
    row_bytes = int(np.prod(decoded_shape(manifest, side)))
    squares = side if manifest.shape is None else None
    reads, first = [], 0
    for file in manifest.splits[STORED_SPLIT[split]].files:
        for index, size in enumerate(file.row_groups):
            low, high = np.searchsorted(positions, (first, first + size))
            if low < high:
                rows = tuple((positions[low:high] - first).tolist())
                key = f"{prefix}/{file.key}"
                reads.append(GroupRead(key, index, rows, len(rows) * row_bytes, squares))
            first += size
    return reads


def read_group(store: Store, read: GroupRead, columns: tuple[str, ...]) -> pa.Table:
    """One row group's wanted rows, their images as pixels of one size."""
    with store.open_input(read.key) as source:
        table = pq.ParquetFile(source).read_row_group(read.row_group, columns=list(columns))
    if len(read.rows) < table.num_rows:
        table = table.take(pa.array(read.rows, type=pa.int64()))
    return table if read.side is None else with_squares(table, read.side, read.key)


class RowGroups(Datasource):
    """Ray Data's view of a list of row-group reads; neighbors share a task up to TASK_BYTES."""

    def __init__(self, store: Store, reads: list[GroupRead], columns: tuple[str, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._store, self._reads, self._columns = store, reads, columns

    def get_name(self) -> str:
        return "RowGroups"

    def estimate_inmemory_data_size(self) -> int:
        return sum(read.size_bytes for read in self._reads)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(self._reader(reads), self._metadata(reads), None, per_task_row_limit)
            for reads in self.tasks()
        ]

    def tasks(self) -> list[list[GroupRead]]:
        """The reads, cut into one list per Ray task."""
        tasks: list[list[GroupRead]] = []
        room = 0
        for read in self._reads:
            if read.size_bytes > room:
                tasks.append([])
                room = max(TASK_BYTES, read.size_bytes)
            tasks[-1].append(read)
            room -= read.size_bytes
        return tasks

    def _reader(self, reads: list[GroupRead]) -> Any:
        store, columns = self._store, self._columns
        return lambda: (read_group(store, read, columns) for read in reads)

    @staticmethod
    def _metadata(reads: list[GroupRead]) -> BlockMetadata:
        return BlockMetadata(
            num_rows=sum(len(read.rows) for read in reads),
            size_bytes=sum(read.size_bytes for read in reads),
            exec_stats=None,
            task_exec_stats=None,
            input_files=tuple(read.key for read in reads),
        )


def read_shard(
    store: Store,
    manifest: Manifest,
    split: str,
    positions: Positions,
    label_column: str = "label",
    order_seed: int | None = None,
    side: int | None = None,
) -> Iterator[pa.Table]:
    """Tables of (image, label column, row_id) for these positions of a split.

    In stored order, or, with a seed, with the row groups in an order drawn from it. Encoded images
    become squares of `side` in Ray's tasks, which run wherever the cluster has a CPU free.
    """
    reads = plan_reads(manifest, split, positions, side)
    if order_seed is not None:
        order = np.random.default_rng(order_seed).permutation(len(reads))
        reads = [reads[i] for i in order]
    if not reads:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(
        logging.ERROR
    )  # avoids a warning about progress bars
    source = RowGroups(store, reads, ("image", label_column, "row_id"))
    dataset = ray.data.read_datasource(
        source, num_cpus=TASK_CPUS, override_num_blocks=len(source.tasks())
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
