"""A training on two workers: repeated, hit by SIGKILL, stopped and damaged, it ends the same."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.local import processes
from cifarray.backends.local.state import TOKEN_FILE, Node
from cifarray.runs import Run
from cifarray.training.checkpoint_store import stored_checkpoints
from tests.integration.command_line import CommandLine, wait_for, wait_until
from tests.integration.conftest import SLOW_EPOCHS
from tests.integration.same_runs import refuse_difference


def begin(cifarray: CommandLine, how: str, name: str) -> tuple[Run, "subprocess.Popen[str]"]:
    """Begin the undisturbed run's job under another name; the run once it is recorded."""
    command = cifarray.start(how, "train-digits", *SLOW_EPOCHS, "--name", name)
    spec = f"runs/{name}/job.yaml"
    wait_until(lambda: cifarray.store.exists(spec), "the recording of the run", command)
    return Run(cifarray.store, name), command


def wait_for_epoch(run: Run, epoch: int, command: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait until a checkpoint of an epoch is whole; that epoch's record."""

    def reached() -> bool:
        return any(c.epoch >= epoch for c in stored_checkpoints(run.store, run.key("attempts")))

    wait_until(reached, f"epoch {epoch}", command)
    return run.metrics()[-1]


def log_of(run: Run, attempt: int) -> str:
    """What the driver and the workers of an attempt wrote."""
    return run.store.read(run.key("attempts", str(attempt), "driver.log")).decode()


def workers_of(node: Node) -> list[int]:
    """Process ids of the node's Train workers."""
    members = processes.family(node.leader, node.temp_dir)
    titles = {member.pid: processes.command_line(member.pid) for member in members}
    return [pid for pid, title in titles.items() if title.startswith("ray::RayTrainWorker")]


@dataclass(frozen=True)
class Survivor:
    """A run of which a worker was killed from outside, and when that was."""

    run: Run
    epochs_before: int
    killed_at: float


@pytest.fixture(scope="module")
def survivor(cifarray: CommandLine, trained: Run, session_node: tuple[Node, Path]) -> Survivor:
    """The undisturbed run's job, its driver in the command's own process, hit within epoch 3."""
    run, command = begin(cifarray, "run", "killed-worker")
    record = wait_for_epoch(run, 2, command)
    time.sleep(record["step_s"] / 4)
    victims = workers_of(session_node[0])
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    killed_at = time.time()
    epochs_before = len(run.metrics())
    ended = wait_for(command)
    assert ended.code == 0, ended.err
    return Survivor(run, epochs_before, killed_at)


def test_run_gives_the_weights_that_submit_gives_though_a_worker_is_killed_in_mid_epoch(
    survivor: Survivor, trained: Run, tmp_path: Path
) -> None:
    assert survivor.epochs_before == 2, "the kill came too late to be within epoch 3"
    third = survivor.run.metrics()[2]
    begun = datetime.fromisoformat(third["ended_at"]).timestamp() - third["epoch_s"]
    assert begun > survivor.killed_at, "epoch 3 was not done again"
    assert survivor.run.attempt_numbers() == [1]
    refuse_difference(survivor.run, trained, tmp_path)


def test_a_store_is_read_where_no_node_has_ever_been(
    cifarray: CommandLine, trained: Run, survivor: Survivor, tmp_path: Path
) -> None:
    nodeless = cifarray.with_environment(CIFARRAY_STATE_DIR=str(tmp_path / "state"))
    assert nodeless.json("cluster", "status") is None
    ids = [trained.id, survivor.run.id]
    listed = {run["run_id"]: run for run in nodeless.json("runs")}
    assert [listed[run_id]["state"] for run_id in ids] == ["finished", "finished"]
    status = nodeless.json("status", trained.id)
    assert status["best"] == listed[trained.id]["best"]
    assert status["has_report"] is True
    assert "epoch 4  " in nodeless("logs", trained.id)
    assert nodeless.json("report", trained.id)["run_id"] == trained.id
    assert [run["run_id"] for run in nodeless.json("compare", *ids)["runs"]] == ids
    pulled = nodeless.json("pull", trained.id, tmp_path / "pulled")
    assert set(pulled["checkpoints"]) == {"best", "last"}
    assert pulled["problems"] == []


def test_a_stopped_run_resumes_before_its_damaged_last_checkpoint_with_the_same_weights(
    cifarray: CommandLine, trained: Run, tmp_path: Path
) -> None:
    run, command = begin(cifarray, "submit", "stopped-run")
    wait_for_epoch(run, 1, command)
    (first,) = stored_checkpoints(run.store, run.key("attempts"))
    run.store.copy_folder(first.key, "aside")  # best and last are kept, here one and the same
    wait_for_epoch(run, 2, command)
    command.send_signal(signal.SIGINT)
    left = wait_for(command)
    assert left.code == 130
    assert f"cifarray logs -f {run.id}" in left.err and f"cifarray stop {run.id}" in left.err
    assert run.status().state == "running"
    assert cifarray.json("stop", run.id) == {"run_id": run.id, "state": "stopped"}
    assert run.status().error is None, "its driver did not close it"
    run.store.copy_folder("aside", f"{first.key.rpartition('/')[0]}/kept")
    last, before, *_ = stored_checkpoints(run.store, run.key("attempts"))
    assert last.epoch > before.epoch >= first.epoch
    state = bytearray(run.store.read(f"{last.key}/state.pt"))
    state[len(state) // 2] ^= 1
    run.store.write(f"{last.key}/state.pt", bytes(state))

    assert cifarray.json("resume", run.id)["state"] == "finished"
    assert f"continuing from attempt 1: epoch {before.epoch}\n" in log_of(run, attempt=2)
    assert run.attempt_numbers() == [1, 2]
    refuse_difference(run, trained, tmp_path)


@pytest.mark.parametrize("command", ["stop", "resume"])
def test_a_finished_run_can_neither_be_stopped_nor_resumed(
    cifarray: CommandLine, trained: Run, command: str
) -> None:
    ended = cifarray.type(command, trained.id)
    assert ended.code == 2
    assert "has" in ended.sentence and "finished" in ended.sentence


def test_the_dashboard_lists_the_training_and_status_says_where_it_is(
    cifarray: CommandLine, trained: Run, session_node: tuple[Node, Path]
) -> None:
    node, state = session_node
    token = (state / TOKEN_FILE).read_text().strip()
    request = urllib.request.Request(
        f"{node.dashboard}/api/train/v2/runs/v1", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        listed = json.loads(answer.read())
    assert f"{trained.id}-1" in {each["name"] for each in listed["train_runs"]}
    assert cifarray.json("status", trained.id)["cluster"]["dashboard"] == node.dashboard


def test_a_job_that_can_never_be_scheduled_says_so(cifarray: CommandLine, tmp_path: Path) -> None:
    profile = tmp_path / "vast.yaml"
    profile.write_text("kind: local\nworkers: 2\ncpus_per_worker: 400\n")
    ended = cifarray.type("submit", "train-digits", "--cluster", profile, "--name", "too-large")
    assert ended.code == 1
    assert "need 800.25 CPUs, but the cluster has " in ended.sentence
    assert Run(cifarray.store, "too-large").status().state == "failed"
