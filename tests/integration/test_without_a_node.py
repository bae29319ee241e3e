"""What reads runs needs the store alone: it works when no node is left."""

from pathlib import Path

import pytest

from cifarray.runs import Run
from tests.integration.command_line import CommandLine


@pytest.fixture
def nodeless(cifarray: CommandLine, trained: Run, repeated: Run, tmp_path: Path) -> CommandLine:
    """The command line on the same store, where no node has ever been."""
    assert trained.store.uri == cifarray.environment["CIFARRAY_STORE"]
    return cifarray.with_environment(CIFARRAY_STATE_DIR=str(tmp_path / "state"))


def test_a_store_is_read_without_any_node(
    nodeless: CommandLine, trained: Run, repeated: Run, tmp_path: Path
) -> None:
    listed = {run["run_id"]: run for run in nodeless.json("runs")}
    assert {trained.id, repeated.id} <= listed.keys()
    assert listed[trained.id]["state"] == "finished"
    status = nodeless.json("status", trained.id)
    assert status["best"] == listed[trained.id]["best"]
    assert status["has_report"] is True
    assert "epoch 4  " in nodeless("logs", trained.id)
    report = nodeless.json("report", trained.id)
    assert report["run_id"] == trained.id
    compared = nodeless.json("compare", trained.id, repeated.id)
    assert [run["run_id"] for run in compared["runs"]] == [trained.id, repeated.id]
    pulled = nodeless.json("pull", trained.id, tmp_path / "pulled")
    assert set(pulled["checkpoints"]) == {"best", "last"}
    assert pulled["problems"] == []
    assert nodeless.json("cluster", "status") is None
