"""Runs to test with: a recorded job, and an attempt that has left what a real one leaves."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from cifarray.runs import Attempt, Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.spec.job import DatasetSpec, Job, ModelSpec, TrainSpec
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store

DIGEST = "ab" * 32


def run_spec(run_id: str, digest: str = DIGEST, job_name: str = "train-digits") -> RunSpec:
    """What a submission of a small job records."""
    return RunSpec(
        run_id=run_id,
        job=Job(
            name=job_name,
            kind="train",
            dataset=DatasetSpec(name="digits"),
            model=ModelSpec(name="cnn3"),
            train=TrainSpec(epochs=3),
        ),
        profile=Profile(name="local", kind="local"),
        world_size=2,
        dataset_digest=digest,
        validation_rows=100,
        validation_sha256="cd" * 32,
        submitted_at="2026-11-23T10:00:00+00:00",
        versions={"python": "3.11"},
    )


@pytest.fixture
def new_run(store: Store) -> Callable[..., Run]:
    """Makes runs in the store."""

    def make(run_id: str = "train-digits-261123-100000-abcd", **fields: Any) -> Run:
        return Run.create(store, run_spec(run_id, **fields))

    return make


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    """A pending run."""
    return new_run()


def add_checkpoint(store: Store, folder: str, epoch: int, top1: float) -> bytes:
    """Write a checkpoint folder as training does; returns the bytes of its state."""
    state = f"weights of {folder} epoch {epoch}".encode() * 5000
    store.write(f"{folder}/state.pt", state)
    proof = {
        "schema_version": 1,
        "epoch": epoch,
        "step": epoch * 10,
        "metrics": {"epoch": epoch, "validation.top1": top1, "validation.loss": 1 - top1},
        "files": {
            "state.pt": {
                "size_bytes": len(state),
                "sha256": hashlib.sha256(state).hexdigest(),
            }
        },
    }
    store.write(f"{folder}/checkpoint.json", json.dumps(proof).encode())
    return state


def fill(attempt: Attempt) -> None:
    """What an attempt of three epochs writes until its end, with Ray's own files among it."""
    store, prefix = attempt.run.store, attempt.prefix
    top1s = (0.8, 0.9, 0.85)
    records = [{"epoch": epoch, "validation.top1": top1} for epoch, top1 in enumerate(top1s)]
    write_metrics(store, prefix, records)
    for epoch, top1 in enumerate(top1s):
        add_checkpoint(store, f"{prefix}/checkpoints/ray_run/epoch_00000{epoch}", epoch, top1)
    store.write(f"{prefix}/checkpoints/ray_run/.validate_storage_marker", b"")
    store.write(f"{prefix}/checkpoints/ray_run/checkpoint_manager_snapshot.json", b"{}")
    store.write(f"{prefix}/driver.log", b"epoch 0\nepoch 1\n")
    store.write(f"{prefix}/evaluation/test.parquet", b"rows")


def write_report(run: Run) -> None:
    """A small report with its index."""
    from cifarray.runs import write_index

    run.store.write_json(run.key("report", "report.json"), {"test.top1": 0.9})
    run.store.write(run.key("report", "report.html"), b"<html></html>")
    write_index(run.store, run.key("report"))


@pytest.fixture
def finished(run: Run) -> Run:
    """A run whose only attempt has ended well, with report."""
    attempt = run.start_attempt("a driver")
    fill(attempt)
    best = "attempts/1/checkpoints/ray_run/epoch_000001"
    run.store.write_json(run.key("best.json"), {"checkpoint": best, "epoch": 1, "trial_id": None})
    attempt.heartbeat(best={"metric": "validation.top1", "value": 0.9, "epoch": 1})
    write_report(run)
    attempt.close("finished")
    return run
