"""A sweep whose driver dies goes on where it was: what is done is not done again."""

import os
import signal
from pathlib import Path

import pytest

from cifarray.backends.local import processes
from cifarray.backends.local.state import Node
from cifarray.runs import Run, read_metrics
from cifarray.training.checkpoint_store import stored_checkpoints
from tests.integration.command_line import CommandLine, wait_for, wait_until

EPOCHS = 3
SWEEP = (
    "tune-digits",
    "--set", "train.global_batch_size=8",
    "--set", f"train.epochs={EPOCHS}",
    "--set", "sweep.trials=3",
    "--set", "sweep.max_concurrent=1",
    "--set", "sweep.scheduler.name=none",
)  # fmt: skip
"""One trial at a time, and epochs of a second or two."""
PROFILE = "kind: local\nworkers: 2\ncpus_per_worker: 0.5\nthreads_per_worker: 1\n"
"""With one thread an epoch lasts about as long on a busy machine too."""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The cluster profile of these sweeps."""
    file = tmp_path / "one-thread.yaml"
    file.write_text(PROFILE)
    return file


def folders(run: Run, attempt: int) -> list[str]:
    """The trials that an attempt has begun, in order."""
    prefix = run.key("attempts", str(attempt), "trials")
    names = sorted(run.store.folders(prefix))
    return [f"{prefix}/{name}" for name in names if run.store.exists(f"{prefix}/{name}/trial.json")]


def epochs_of(run: Run, folder: str) -> int:
    """The newest epoch of a trial that has a checkpoint."""
    found = stored_checkpoints(run.store, folder)
    return found[0].epoch if found else 0


def driver_of(run: Run, node: Node) -> int:
    """Process id of the run's driver."""
    members = processes.family(node.leader, node.temp_dir)
    titles = {member.pid: processes.command_line(member.pid) for member in members}
    (pid,) = [p for p, title in titles.items() if f"-m cifarray.driver {run.id} " in title]
    return pid


def test_a_killed_sweep_resumes_without_training_an_epoch_twice(
    cifarray: CommandLine, session_node: tuple[Node, Path], profile: Path
) -> None:
    run = Run(cifarray.store, "killed-sweep")
    command = cifarray.start("submit", *SWEEP, "--cluster", profile, "--name", run.id)

    def second_trial_runs() -> bool:
        begun = folders(run, attempt=1)
        return len(begun) == 2 and epochs_of(run, begun[1]) == 1

    wait_until(second_trial_runs, "the first epoch of the second trial", command)
    os.kill(driver_of(run, session_node[0]), signal.SIGKILL)
    ended = wait_for(command)
    assert ended.code == 1
    assert "killed by signal 9" in ended.sentence
    assert f"`cifarray resume {run.id}`" in ended.sentence
    assert run.status().state == "running", "who follows a run writes nothing"
    finished, running = folders(run, attempt=1)
    assert run.store.exists(f"{finished}/ended.json")
    assert (epochs_of(run, finished), epochs_of(run, running)) == (EPOCHS, 1)

    assert cifarray("resume", run.id, "--detach") == f"{run.id}\n"
    assert "continuing from attempt 1: " in cifarray("logs", "-f", run.id)
    assert run.status().state == "finished"
    assert [epochs_of(run, folder) for folder in folders(run, attempt=2)] == [EPOCHS] * 3
    ends = [
        {
            record["ended_at"]
            for attempt in (1, 2)
            for record in read_metrics(run.store, f"{run.key('attempts', str(attempt))}/{trial}")
        }
        for trial in (folder.partition("/attempts/2/")[2] for folder in folders(run, attempt=2))
    ]
    assert [len(stamps) for stamps in ends] == [EPOCHS] * 3, "an epoch was trained twice"
    before = {
        r["ended_at"] for folder in (finished, running) for r in read_metrics(run.store, folder)
    }
    assert len(before) == EPOCHS + 1
    assert ends[0] < before

    report = cifarray.json("report", run.id)
    trials = {trial["id"]: trial for trial in report["trials"]}
    assert [(t["state"], t["epochs"]) for t in trials.values()] == [("finished", EPOCHS)] * 3

    job = cifarray.json("submit", "train-digits", "--best-of", run.id, "--dry-run")
    best = trials[report["best_trial_id"]]["parameters"]
    assert {path: job[path.split(".")[0]][path.split(".")[1]] for path in best} == best


def test_ctrl_c_stops_a_sweep_in_this_process_and_does_not_take_it_for_finished(
    cifarray: CommandLine, profile: Path
) -> None:
    run = Run(cifarray.store, "interrupted-sweep")
    command = cifarray.start("run", *SWEEP, "--cluster", profile, "--name", run.id)
    wait_until(
        lambda: any(epochs_of(run, folder) for folder in folders(run, attempt=1)),
        "the first epoch of a trial",
        command,
    )
    command.send_signal(signal.SIGINT)
    assert wait_for(command).code == 130
    assert run.status().state == "stopped"
    assert not run.has_report()
