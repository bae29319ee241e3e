"""A checkpoint's figures on every row of a split, in this process."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cifarray.data.cache import ResidentShard, Rows, rows_from_table
from cifarray.data.labels import Labels, learnt_labels
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.rows import decoded, decoded_shape, read_columns
from cifarray.data.selection import STORED_SPLIT, select_rows
from cifarray.errors import DatasetError
from cifarray.reporting.scores import Predictions
from cifarray.store import Store
from cifarray.training.checkpoint import Checkpoint
from cifarray.training.evaluation import predict_shard


@dataclass(frozen=True)
class Evaluation:
    """What a network says about a split."""

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
    another digest of the same, gives its test split alone; of a network that learnt some of a
    dataset's classes, the rows of the classes with these names.

    Raises: DatasetError if it is missing, or has other classes or another image shape.
    """
    digest = checkpoint.dataset["digest"] if dataset is None else None
    manifest = load_manifest(store, dataset or checkpoint.dataset["name"], digest)
    labels = _labels(checkpoint, manifest)
    same = manifest.digest == checkpoint.dataset["digest"]
    if split not in (STORED_SPLIT if same else ("test",)):
        choices = ", ".join(STORED_SPLIT) if same else "test (the network learnt other data)"
        raise DatasetError(f"no split '{split}' of {manifest.name} here; choose from: {choices}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shard = ResidentShard(_read(checkpoint, store, manifest, split, labels), device)
    model, normalize = checkpoint.model.to(device), checkpoint.preprocess.to(device)
    return Evaluation(
        manifest.name,
        manifest.digest,
        split,
        checkpoint.epoch,
        checkpoint.fine_to_coarse,
        predict_shard(model, shard, normalize),
    )


def _read(
    checkpoint: Checkpoint, store: Store, manifest: Manifest, split: str, labels: Labels
) -> Rows:
    table = read_columns(store, manifest, STORED_SPLIT[split], ["image", labels.column, "row_id"])
    wanted = np.ones(table.num_rows, dtype=np.bool_)
    if split != "test":
        wanted[:] = False
        wanted[select_rows(store, manifest, checkpoint.job).positions[split]] = True
    elif labels.stored is not None:
        wanted = labels.among(table)
    table = table.filter(pa.array(wanted))  # take() fails above 2 GiB of encoded images
    if not table.num_rows:
        raise DatasetError(f"no {split} row of {manifest.name} is of the network's classes")
    table = decoded(table, manifest, checkpoint.input_shape[0])
    return rows_from_table(labels.renumbered(table), checkpoint.input_shape)


def _labels(checkpoint: Checkpoint, manifest: Manifest) -> Labels:
    """The dataset's labels as the network has learnt them.

    Raises: DatasetError for images or classes that are not the network's; JobError for lack of one.
    """
    shape = decoded_shape(manifest, checkpoint.input_shape[0])
    if shape != checkpoint.input_shape:
        raise DatasetError(
            f"{manifest.name} has images of {list(shape)} (height, width, channels), the network "
            f"takes {list(checkpoint.input_shape)}; choose another dataset"
        )
    dataset = checkpoint.job.dataset
    if dataset.classes is not None:
        dataset = dataset.model_copy(update={"classes": checkpoint.classes})
    labels = learnt_labels(dataset, manifest)
    classes = labels.classes
    if classes != checkpoint.classes:
        differs = np.flatnonzero(
            [a != b for a, b in zip(classes, checkpoint.classes, strict=False)]
        )
        where = f", the first that differs is number {differs[0]}" if len(differs) else ""
        raise DatasetError(
            f"{manifest.name} has {len(classes)} classes, the network {len(checkpoint.classes)}"
            f"{where}; only a dataset with the same class names can be evaluated"
        )
    return labels
