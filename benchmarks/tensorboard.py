"""What TensorBoard's files cost an epoch, in one process without Ray.

    python -m benchmarks.tensorboard [--model resnet18] [--epochs 30]

Trains on the bundled digits and times what rank 0 does for TensorBoard after each epoch: curves
alone, and with histograms of every epoch. The first epoch pays for the graph.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch

from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest
from cifarray.data.ray_dataset import plan_reads, read_group
from cifarray.data.split import Positions, select_rows
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.training.rows import RowSource
from cifarray.training.tensorboard import Board
from cifarray.training.trainer import Trainer


def main() -> None:
    """Print a line per way of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| histograms | epoch, ms | first epoch's files, ms | later ones, median, ms | max |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for histograms in (None, {"every_epochs": 1}):
            epochs, files = measure(Path(folder), given.model, given.epochs, histograms)
            first, later = files[0], files[1:]
            figures = (statistics.median(epochs), first, statistics.median(later), max(later))
            cells = " | ".join(f"{1000 * seconds:.3g}" for seconds in figures)
            print(f"| {'every epoch' if histograms else 'off'} | {cells} |")


def measure(
    folder: Path, model: str, epochs: int, histograms: dict[str, int] | None
) -> tuple[list[float], list[float]]:
    """Seconds of each epoch, and of the files that it adds."""
    job = Job.model_validate(
        {
            "name": "board",
            "kind": "train",
            "dataset": {"name": "digits"},
            "model": {"name": model},
            "train": {"epochs": epochs, "histograms": histograms},
        }
    )
    store = Store.open(str(folder / "store"))
    manifest, _ = prepare(store, "digits")
    rows = RowSource(
        manifest=manifest,
        selection=select_rows(store, manifest, job),
        read=partial(read, store, manifest),
        device=torch.device("cpu"),
        cache_bytes=1 << 30,
    )
    session, board = Trainer(job, rows), Board(store, f"runs/{histograms is not None}")
    files = []
    for _ in session.records():
        began = time.perf_counter()
        board.show(session)
        files.append(time.perf_counter() - began)
    return [record["epoch_s"] for record in session.history], files


def read(
    store: Store, manifest: Manifest, split: str, positions: Positions, label: str, seed: int | None
) -> Iterator[pa.Table]:
    """The rows, row group by row group, in stored order."""
    del seed
    for group in plan_reads(manifest, split, positions):
        yield read_group(store, group, ("image", label, "row_id"))


if __name__ == "__main__":
    main()
