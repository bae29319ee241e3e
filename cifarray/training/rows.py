"""A rank's rows of a dataset as a job selects them, held on its device or streamed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cifarray.data.augment.normalize import Spectrum
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import decoded_shape, read_columns
from cifarray.data.shard import Shard, hold
from cifarray.data.split import STORED_SPLIT, Positions, Selection
from cifarray.store import Store
from cifarray.training.distributed import world
from cifarray.training.preprocessing import fit_spectrum

ShardReader = Callable[[str, Positions, str, int | None], Iterator[pa.Table]]
"""(split, positions, label column, order seed or None) -> tables of image, label and row_id."""


@dataclass(frozen=True)
class RowSource:
    """The dataset as a job sees it: what is selected, and how a rank reads its part."""

    manifest: Manifest
    selection: Selection
    read: ShardReader
    device: torch.device
    cache_bytes: int
    side: int | None = None
    """Of the squares that encoded images become; those stored as pixels need none."""
    store: Store | None = None
    """The dataset's store; also has data that is kept next to the images."""
    _held: dict[str, Shard] = field(default_factory=dict)
    _spectra: list[Spectrum | None] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images as they are held."""
        return decoded_shape(self.manifest, self.side)

    def shard(self, split: str) -> Shard:
        """This rank's rows of a split; read at the first call where they stay on the device."""
        if split not in self._held:
            self._held[split] = self._open(split)
        return self._held[split]

    def spectrum(self) -> Spectrum | None:
        """How train's images vary, on rank 0; computed once for all trials that share the rows."""
        if not self._spectra:
            values = int(np.prod(self.shape))
            self._spectra.append(fit_spectrum(self.shard("train"), values, self.device))
        return self._spectra[0]

    def passing(self, split: str) -> Shard:
        """This rank's rows of a split, to be read once and not held."""
        return self._hold(split, budget_bytes=0)

    def labels(self, split: str) -> tuple[Tensor, Tensor]:
        """(labels, row ids) of this rank's rows of a split, read without their images."""
        assert self.store is not None, "only rows of a store have labels without their images"
        (rank, world_size), labels = world(), self.selection.labels
        columns = [labels.column, "row_id"]
        table = read_columns(self.store, self.manifest, STORED_SPLIT[split], columns)
        table = labels.renumbered(table.take(self.selection.shard(split, world_size, rank)))
        labels_R, row_ids_R = (
            torch.from_numpy(column.to_numpy().astype(np.int64)) for column in table.columns
        )
        return labels_R, row_ids_R

    def _open(self, split: str) -> Shard:
        """Resident if train and validation fit the budget together, else streamed."""
        rank, world_size = world()
        held = (len(self.selection.shard(s, world_size, rank)) for s in ("train", "validation"))
        fits = sum(held) * int(np.prod(self.shape)) <= self.cache_bytes
        return self._hold(split, self.cache_bytes if fits else 0)

    def _hold(self, split: str, budget_bytes: int) -> Shard:
        rank, world_size = world()
        positions = self.selection.shard(split, world_size, rank)
        labels = self.selection.labels
        return hold(
            lambda seed: map(labels.renumbered, self.read(split, positions, labels.column, seed)),
            rows=len(positions),
            shape=self.shape,
            device=self.device,
            budget_bytes=budget_bytes,
        )
