"""A job's epochs in this process, without Ray: prints the seconds of each after the first.

    python -m benchmarks.bare STORE JOB THREADS [FIELD=VALUE ...]

The seconds are those between two records: training and validation, without any checkpoint.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import torch

from cifarray.data.manifest import load_manifest
from cifarray.data.ray_dataset import plan_reads, read_group
from cifarray.data.split import Positions, select_rows
from cifarray.spec.load import load_job
from cifarray.store import Store
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer


def main(uri: str, name_or_path: str, threads: str, *sets: str) -> None:
    """Train the job and print the seconds as a JSON list."""
    store, job = Store.open(uri), load_job(name_or_path, sets)
    manifest = load_manifest(store, job.dataset.name)

    def read(
        split: str, positions: Positions, column: str, order_seed: int | None
    ) -> Iterator[pa.Table]:
        for group in plan_reads(manifest, split, positions):
            yield read_group(store, group, ("image", column, "row_id"))

    torch.set_num_threads(int(threads))
    selection = select_rows(store, manifest, job)
    rows = RowSource(manifest, selection, read, torch.device("cpu"), 1 << 30)
    stamps = [time.time() for _ in Trainer(job, rows).records()]
    print(json.dumps([after - before for before, after in pairwise(stamps)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
