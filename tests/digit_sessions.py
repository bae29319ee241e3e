"""Trainers on the bundled digits that read the store as Ray's tasks do, without a Ray node."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest
from cifarray.data.ray_dataset import plan_reads, read_group
from cifarray.data.split import Positions, Selection, select_rows
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.training.rows import RowSource, ShardReader
from cifarray.training.trainer import Trainer

CPU = torch.device("cpu")
JOB: dict[str, Any] = {
    "name": "few-digits",
    "kind": "train",
    "dataset": {"name": "digits", "rows": 80},
    "validation": {"fraction": 0.2},
    "model": {"name": "cnn3"},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "train": {"epochs": 2, "global_batch_size": 32},
}
"""80 of the digits, 64 of them to train on: an epoch takes hundredths of a second."""


def small_job(**sections: Any) -> Job:
    """The small job with other sections; a section that is a mapping replaces single fields."""
    values = dict(JOB)
    for name, value in sections.items():
        old = values.get(name)
        values[name] = {**old, **value} if isinstance(old, dict) and value else value
    return Job.model_validate(values)


def shard_reader(store: Store, manifest: Manifest, side: int | None = None) -> ShardReader:
    """Reads a shard row group by row group, in this process."""

    def read(
        split: str, positions: Positions, label_column: str, order_seed: int | None
    ) -> Iterator[pa.Table]:
        reads = plan_reads(manifest, split, positions, side)
        if order_seed is not None:
            reads = [reads[i] for i in np.random.default_rng(order_seed).permutation(len(reads))]
        for group in reads:
            yield read_group(store, group, ("image", label_column, "row_id"))

    return read


def open_rows(
    store: Store,
    manifest: Manifest,
    job: Job,
    *,
    selection: Selection | None = None,
    cache_bytes: int = 1 << 30,
) -> RowSource:
    """The job's rows on the CPU."""
    selection = selection or select_rows(store, manifest, job)
    side = job.preprocess.resize
    reader = shard_reader(store, manifest, side)
    return RowSource(manifest, selection, reader, CPU, cache_bytes, side, store)


@dataclass(frozen=True)
class Digits:
    """The bundled digits, prepared in a local store."""

    store: Store
    manifest: Manifest

    @staticmethod
    def prepared_in(folder: Path) -> "Digits":
        """Digits in a store in this folder."""
        store = Store.open(str(folder))
        return Digits(store, prepare(store, "digits")[0])

    def rows(self, job: Job, **options: Any) -> RowSource:
        """The job's rows."""
        return open_rows(self.store, self.manifest, job, **options)

    def trainer(
        self, job: Job | None = None, rows: RowSource | None = None, weights: Path | None = None
    ) -> Trainer:
        """The small job, or another one, on this rank."""
        job = job or small_job()
        return Trainer(job, rows or self.rows(job), weights=weights)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A copy of the weights that the trainer's checkpoint would hold."""
    return {name: tensor.clone() for name, tensor in trainer.state()["model"].items()}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two networks hold the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """An epoch's record without what the clock says."""
    clock = ("step_s", "epoch_s", "images_per_s", "data_wait", "ended_at")
    return {name: value for name, value in record.items() if name not in clock}
