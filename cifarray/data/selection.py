"""Which stored rows are train, validation and test for a job, and which of them each rank reads.

A position is a row's place in the stored order of its split's files, counted from 0.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifarray.data.manifest import Manifest
from cifarray.data.rows import read_columns
from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.store import Store

Positions = NDArray[np.int64]
STORED_SPLIT = {"train": "train", "validation": "train", "test": "test"}
"""Validation is cut from the stored train split."""


@dataclass(frozen=True)
class Selection:
    """The rows of a job's splits: stored positions, ascending, and the validation rows' ids."""

    positions: Mapping[str, Positions]
    validation_row_ids: Positions

    def shard(self, split: str, world_size: int, rank: int) -> Positions:
        """The positions that a rank reads; shards differ by at most one row."""
        low, high = shard_range(len(self.positions[split]), world_size, rank)
        return self.positions[split][low:high]

    def shard_rows(self, split: str, world_size: int) -> list[int]:
        """How many rows each rank holds."""
        rows = len(self.positions[split])
        ranges = (shard_range(rows, world_size, rank) for rank in range(world_size))
        return [high - low for low, high in ranges]

    @property
    def validation_sha256(self) -> str:
        """sha256 over the sorted validation row_ids as a JSON list."""
        text = json.dumps(sorted(self.validation_row_ids.tolist()), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def shard_range(rows: int, world_size: int, rank: int) -> tuple[int, int]:
    """The half-open range of a rank: the first `rows % world_size` ranks hold one row more."""
    size, extra = divmod(rows, world_size)
    low = rank * size + min(rank, extra)
    return low, low + size + (rank < extra)


def select_rows(store: Store, manifest: Manifest, job: Job) -> Selection:
    """Cut train's rows into train and validation as the job says; test is whole.

    Raises: JobError when either part would be empty.
    """
    table = read_columns(store, manifest, "train", ["row_id", "label"])
    row_ids = table["row_id"].to_numpy().astype(np.int64)
    labels = table["label"].to_numpy().astype(np.int64)
    chosen = np.flatnonzero(row_ids < (job.dataset.rows or len(row_ids)))
    held_back = choose_validation(
        row_ids[chosen], labels[chosen], job.validation.fraction, job.validation.seed
    )
    validation, train = chosen[held_back], chosen[~held_back]
    if not len(validation) or not len(train):
        raise JobError(
            f"validation.fraction {job.validation.fraction} of {len(chosen)} train rows leaves "
            f"{len(train)} for train and {len(validation)} for validation; choose another fraction"
        )
    test = np.arange(manifest.splits["test"].rows, dtype=np.int64)
    positions = {"train": train, "validation": validation, "test": test}
    return Selection(positions, np.sort(row_ids[validation]))


def choose_validation(
    row_ids: Positions, labels: Positions, fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Mark `fraction` of every class, chosen by a hash of (seed, row_id).

    Class sizes are rounded so that the whole comes as near to `fraction` as it can (largest
    remainders first). A hash, unlike a generator, gives the same rows under any library version.
    """
    digest = [
        hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest()
        for row_id in row_ids.tolist()
    ]
    draw = np.frombuffer(b"".join(digest), dtype=">u8").astype(np.uint64)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * fraction
    quota = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    marked = np.zeros(len(row_ids), dtype=np.bool_)
    for label, count in zip(classes.tolist(), quota.tolist(), strict=True):
        members = np.flatnonzero(labels == label)
        marked[members[np.lexsort((row_ids[members], draw[members]))[:count]]] = True
    return marked
