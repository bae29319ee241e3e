"""Evaluates a checkpoint on every row of a split, in this process."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.parquet import decoded_shape, read_rows
from cifarray.data.shard import Shard, hold
from cifarray.data.split import STORED_SPLIT, Labels, learned_labels, rows_of_test, select_rows
from cifarray.errors import DatasetError
from cifarray.report.scores import Predictions
from cifarray.store import Store
from cifarray.training.checkpoint import Checkpoint
from cifarray.training.evaluation import predict_shard

CACHE_BYTES = 1 << 30
"""Images of a split that are held on the device; more are streamed past it."""


@dataclass(frozen=True)
class Evaluation:
    """A network's predictions on a split."""

    dataset: str
    digest: str
    split: str
    epoch: int
    """Of the checkpoint."""
    fine_to_coarse: tuple[int, ...]
    predictions: Predictions

    def to_json(self) -> dict[str, Any]:
        """The figures, named as in report.json."""
        rows = self.predictions
        return {
            "dataset": {"name": self.dataset, "digest": self.digest},
            "split": self.split,
            "epoch": self.epoch,
            "rows": rows.rows,
            "top1": rows.top1,
            "top1_interval": list(rows.interval),
            "top5": rows.top5,
            "loss": rows.loss,
            "superclass_top1": (
                rows.superclass_top1(self.fine_to_coarse) if self.fine_to_coarse else None
            ),
        }


def evaluate(
    checkpoint: Checkpoint, store: Store, dataset: str | None = None, split: str = "test"
) -> Evaluation:
    """Evaluate every row of a split once, without augmentation.

    Without `dataset` the rows are those that the job's report speaks of, on the very digest that
    the network was trained on: train and validation as the job divided them. Another dataset, or
    another digest of the same, gives its test split alone; of a network that learned some of a
    dataset's classes, the rows of the classes with these names.

    Raises: DatasetError if it is missing, or has other classes or another image shape.
    """
    digest = checkpoint.dataset["digest"] if dataset is None else None
    manifest = load_manifest(store, dataset or checkpoint.dataset["name"], digest)
    labels = _labels(checkpoint, manifest)
    same = manifest.digest == checkpoint.dataset["digest"]
    if split not in (STORED_SPLIT if same else ("test",)):
        choices = (
            ", ".join(STORED_SPLIT) if same else "test (the network was trained on other data)"
        )
        raise DatasetError(f"no split '{split}' of {manifest.name} here; choose from: {choices}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shard = _shard(checkpoint, store, manifest, split, labels, device)
    model, normalize = checkpoint.model.to(device), checkpoint.preprocess.to(device)
    return Evaluation(
        manifest.name,
        manifest.digest,
        split,
        checkpoint.epoch,
        checkpoint.fine_to_coarse,
        predict_shard(model, shard, normalize),
    )


def _shard(
    checkpoint: Checkpoint,
    store: Store,
    manifest: Manifest,
    split: str,
    labels: Labels,
    device: torch.device,
) -> Shard:
    """The split's rows of the network's classes, kept in memory if they fit."""
    stored = STORED_SPLIT[split]
    if split == "test":
        positions = rows_of_test(store, manifest, labels)
    else:
        positions = select_rows(store, manifest, checkpoint.job).positions[split]
    columns, side = ["image", labels.column, "row_id"], checkpoint.input_shape[0]
    return hold(
        lambda _: map(
            labels.renumbered, read_rows(store, manifest, stored, positions, columns, side)
        ),
        rows=len(positions),
        shape=checkpoint.input_shape,
        device=device,
        budget_bytes=CACHE_BYTES,
    )


def _labels(checkpoint: Checkpoint, manifest: Manifest) -> Labels:
    """The dataset's labels as the network has learned them.

    Raises: DatasetError for images or classes that are not the network's; JobError for lack of one.
    """
    shape = decoded_shape(manifest, checkpoint.input_shape[0])
    if shape != checkpoint.input_shape:
        raise DatasetError(
            f"{manifest.name} has images of {list(shape)} (height, width, channels), but the "
            f"network takes {list(checkpoint.input_shape)}; choose another dataset"
        )
    dataset = checkpoint.job.dataset
    if dataset.classes is not None:
        dataset = dataset.model_copy(update={"classes": checkpoint.classes})
    labels = learned_labels(dataset, manifest)
    classes = labels.classes
    if classes != checkpoint.classes:
        differs = np.flatnonzero(
            [a != b for a, b in zip(classes, checkpoint.classes, strict=False)]
        )
        where = f", the first that differs is number {differs[0]}" if len(differs) else ""
        raise DatasetError(
            f"{manifest.name} has {len(classes)} classes, but the network has "
            f"{len(checkpoint.classes)}{where}; only a dataset with the same class names can be "
            "evaluated"
        )
    return labels
