"""A rank's rows as tensors: kept on its device if they fit, else streamed in each epoch.

Shapes: N rows of a step, R rows of the shard, C channels, H and W the image's height and width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

TableReader = Callable[[int | None], Iterator[pa.Table]]
"""Gives a shard's tables: in stored order for None, in an order drawn from a seed otherwise."""
STREAM_BUFFER_ROWS = 8192
STREAM_BUFFER_BYTES = 256 << 20
"""Of images; large ones wait in fewer rows, though never in fewer than a step takes."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a dataset: uint8 images, int64 labels and row ids."""

    images_NCHW: Tensor
    labels_N: Tensor
    row_ids_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index: Tensor | slice) -> "Rows":
        """The rows at these indices."""
        return Rows(self.images_NCHW[index], self.labels_N[index], self.row_ids_N[index])

    def to(self, device: torch.device) -> "Rows":
        """The same rows on a device."""
        images, labels, ids = self.images_NCHW, self.labels_N, self.row_ids_N
        return Rows(images.to(device), labels.to(device), ids.to(device))

    @staticmethod
    def join(parts: Sequence["Rows"]) -> "Rows":
        """Rows one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Rows(
            torch.cat([part.images_NCHW for part in parts]),
            torch.cat([part.labels_N for part in parts]),
            torch.cat([part.row_ids_N for part in parts]),
        )


class Shard(Protocol):
    """A rank's rows of one split; the loop cannot tell resident from streamed."""

    rows: int

    def shuffled(self, seed: int, sizes: Sequence[int]) -> Iterator[Rows]:
        """Every row once, in an order drawn from the seed, in batches of these sizes."""
        ...

    def in_order(self, batch_size: int) -> Iterator[Rows]:
        """Every row once, in stored order."""
        ...


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all parts and on nothing else."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rows_from_table(table: pa.Table, shape: Sequence[int]) -> Rows:
    """Tensors of a table's image (fixed-size binary, HWC), label and row_id columns."""
    height, width, channels = shape
    row_bytes = height * width * channels
    images = torch.empty((table.num_rows, channels, height, width), dtype=torch.uint8)
    done = 0
    for chunk in table["image"].chunks:
        pixels = np.frombuffer(
            chunk.buffers()[1], np.uint8, len(chunk) * row_bytes, chunk.offset * row_bytes
        )
        hwc = torch.from_numpy(pixels.reshape(len(chunk), height, width, channels).copy())
        images[done : done + len(chunk)] = hwc.permute(0, 3, 1, 2)
        done += len(chunk)
    labels, row_ids = (
        torch.from_numpy(table.column(i).to_numpy().astype(np.int64)) for i in (1, 2)
    )
    return Rows(images, labels, row_ids)


class ResidentShard:
    """A shard that stays on the device as uint8: shuffling is an index, reading happens once."""

    def __init__(self, held: Rows, device: torch.device) -> None:
        self._held = held.to(device)
        self.rows = len(held)

    def shuffled(self, seed: int, sizes: Sequence[int]) -> Iterator[Rows]:
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(seed))
        order = order.to(self._held.labels_N.device)
        for index in order.split(list(sizes)):
            yield self._held.take(index)

    def in_order(self, batch_size: int) -> Iterator[Rows]:
        for first in range(0, self.rows, batch_size):
            yield self._held.take(slice(first, first + batch_size))


class StreamedShard:
    """A shard that is read again each epoch, row groups in random order, mixed in a buffer.

    Rows were shuffled once at ingest, so a buffer of whole row groups is a fair sample.
    """

    def __init__(
        self, read: TableReader, rows: int, shape: Sequence[int], device: torch.device
    ) -> None:
        self._read, self.rows, self._shape, self._device = read, rows, shape, device

    def shuffled(self, seed: int, sizes: Sequence[int]) -> Iterator[Rows]:
        generator = torch.Generator().manual_seed(seed)
        fitting = STREAM_BUFFER_BYTES // int(np.prod(self._shape))
        buffer_rows = max(min(STREAM_BUFFER_ROWS, fitting), *sizes)
        mixed = self._mixed(seed, buffer_rows, generator)
        yield from self._cut(mixed, sizes)

    def in_order(self, batch_size: int) -> Iterator[Rows]:
        sizes = [batch_size] * (self.rows // batch_size)
        sizes += [self.rows % batch_size] if self.rows % batch_size else []
        yield from self._cut(self._tables(None), sizes)

    def _tables(self, seed: int | None) -> Iterator[Rows]:
        return (rows_from_table(table, self._shape) for table in self._read(seed))

    def _mixed(self, seed: int, buffer_rows: int, generator: torch.Generator) -> Iterator[Rows]:
        """The stream in pieces of at least `buffer_rows`, each piece in a drawn order."""
        waiting: list[Rows] = []
        for rows in self._tables(seed):
            waiting.append(rows)
            if sum(map(len, waiting)) >= buffer_rows:
                yield _shuffle(Rows.join(waiting), generator)
                waiting = []
        if waiting:
            yield _shuffle(Rows.join(waiting), generator)

    def _cut(self, pieces: Iterator[Rows], sizes: Sequence[int]) -> Iterator[Rows]:
        waiting: list[Rows] = []
        for size in sizes:
            while sum(map(len, waiting)) < size:
                waiting.append(next(pieces))
            joined = Rows.join(waiting)
            yield joined.take(slice(size)).to(self._device)
            waiting = [joined.take(slice(size, None))]


def _shuffle(rows: Rows, generator: torch.Generator) -> Rows:
    return rows.take(torch.randperm(len(rows), generator=generator))


def hold(
    read: TableReader,
    rows: int,
    shape: Sequence[int],
    device: torch.device,
    budget_bytes: int,
) -> Shard:
    """The shard on the device if it fits the budget, else one that streams."""
    if rows * int(np.prod(shape)) > budget_bytes:
        return StreamedShard(read, rows, shape, device)
    height, width, channels = shape
    images_NCHW = torch.empty((0, channels, height, width), dtype=torch.uint8)
    none = Rows(images_NCHW, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    return ResidentShard(
        Rows.join([none, *(rows_from_table(t, shape) for t in read(None))]), device
    )
