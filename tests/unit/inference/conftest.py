"""A network trained on digits in this process, its store, and a run that holds its checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import read_columns
from cifarray.data.split import STORED_SPLIT, Positions, select_rows
from cifarray.inference.find_checkpoint import open_checkpoint
from cifarray.report.scores import Predictions
from cifarray.runs import Run
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.training.checkpoint import Checkpoint, write_checkpoint
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer

JOB = Job.model_validate(
    {
        "name": "digits-test",
        "kind": "train",
        "dataset": {"name": "digits"},
        "model": {"name": "cnn3", "dropout": 0.2},
        "optimizer": {"name": "adamw", "lr": 3e-3},
        "train": {"epochs": 2, "global_batch_size": 64},
    }
)
CHECKPOINT = "attempts/1/checkpoints/digits-test-1/epoch_000002_ab12"


@dataclass(frozen=True)
class Trained:
    """A finished run in a store."""

    store: Store
    run: Run
    manifest: Manifest
    predictions: dict[str, Predictions]
    """What the session that trained it said about every split."""

    @property
    def folder(self) -> Path:
        """The run's folder, laid out as a pulled one."""
        return Path(self.store.path(self.run.prefix))

    @property
    def checkpoint(self) -> Path:
        """The folder of its checkpoint."""
        return self.folder / CHECKPOINT


def open_session(store: Store, manifest: Manifest, job: Job) -> Trainer:
    """A session of one rank that reads the store without Ray."""

    def read(split: str, positions: Positions, label: str, seed: int | None) -> Iterator[pa.Table]:
        table = read_columns(store, manifest, STORED_SPLIT[split], ["image", label, "row_id"])
        yield table.take(positions)

    selection = select_rows(store, manifest, job)
    return Trainer(job, RowSource(manifest, selection, read, torch.device("cpu"), 1 << 30))


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs of cnn3 on digits, and the run that they make."""
    store = Store.open(str(tmp_path_factory.mktemp("trained")))
    manifest, _ = prepare(store, "digits")
    session = open_session(store, manifest, JOB)
    *_, record = session.records()
    state = session.state()
    spec = RunSpec(
        run_id="digits-test-261123-040000-1a2b",
        job=JOB,
        profile=Profile(name="local", kind="local"),
        world_size=1,
        dataset_digest=manifest.digest,
        validation_rows=len(select_rows(store, manifest, JOB).validation_row_ids),
        validation_sha256=state["validation_sha256"],
        submitted_at="2026-11-23T04:00:00+00:00",
        versions={},
    )
    run = Run.create(store, spec)
    write_checkpoint(Path(store.path(run.key(CHECKPOINT))), state, record)
    store.write_json(run.key("best.json"), {"checkpoint": CHECKPOINT, "epoch": 2, "trial_id": None})
    predictions = session.evaluate(state["model"])
    assert predictions is not None
    return Trained(store, run, manifest, predictions)


def no_store() -> Store:
    """Fail a test that opens a store where none is needed."""
    raise AssertionError("a store was opened")


@pytest.fixture
def checkpoint(trained: Trained) -> Checkpoint:
    """The trained network, opened from its folder."""
    return open_checkpoint(str(trained.checkpoint), no_store)[0]
