"""Runs in a local store, in every state that the exporter tells apart."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cifarray.runs import Run, lease
from cifarray.spec.profile import Profile
from cifarray.store import Store
from cifarray.store.layout import LEASE_FILE
from tests.unit.runs.conftest import run_spec

AddRun = Callable[..., Run]


def ago(seconds: float) -> str:
    """The time so long ago, as records hold it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def here(tmp_path: Path) -> Store:
    """An empty store in a local directory."""
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def add_run(here: Store) -> AddRun:
    """Records a run of two workers with two GPUs each, whose status has these fields."""

    def add(run_id: str, job_name: str = "train-digits", **fields: Any) -> Run:
        on_gpus = Profile(name="p", kind="local", gpus_per_worker=2.0)
        spec = run_spec(run_id, job_name=job_name).model_copy(update={"profile": on_gpus})
        run = Run.create(here, spec)
        run.change_status(lambda status: dataclasses.replace(status, **fields))
        return run

    return add


@pytest.fixture
def one_of_each(add_run: AddRun) -> dict[str, Run]:
    """A run in each state, by the state; of the lost one a stop has taken the lease away."""
    live = {"state": "running", "attempts": 1, "started_at": ago(100)}
    over = {"attempts": 1, "started_at": ago(1000), "heartbeat_at": ago(400), "ended_at": ago(400)}
    best = {"metric": "validation.top1", "value": 0.97, "epoch": 3}
    progress = {"unit": "epochs", "done": 3, "total": 3, "last": {"train.running_loss": 0.2}}
    diverged = {"unit": "epochs", "done": 1, "total": 3, "last": {"train.running_loss": None}}
    lost = add_run("a-lost", heartbeat_at=ago(500), **live)
    lost.take_charge("a driver")
    lease.take_away(lost.store, lost.key(LEASE_FILE))
    return {
        "pending": add_run("a-pending"),
        "running": add_run("a-running", heartbeat_at=ago(5), best=best, progress=progress, **live),
        "lost": lost,
        "finished": add_run("a-finished", state="finished", best=best, progress=progress, **over),
        "failed": add_run("a-failed", state="failed", progress=diverged, **over),
        "stopped": add_run("a-stopped", state="stopped", **over),
    }
