"""Sweeps on the session's node: repeated they are equal, weak trials stop, every search ends."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.local.node import client_environment
from cifarray.backends.local.state import Node
from cifarray.backends.submit import create, plan
from cifarray.data.manifest import load_manifest
from cifarray.runs import Run
from cifarray.spec.load import load_job, load_profile
from cifarray.training.trials import TrialRecord, read_trials
from tests.conftest import REPOSITORY
from tests.digit_sessions import without_times
from tests.integration.command_line import CommandLine

SMALL = ["dataset.rows=300", "train.epochs=2", "sweep.max_concurrent=1"]
RANDOM = ["sweep.trials=2", "sweep.scheduler.name=none"]
LEARN, HOPELESS = (2e-3, 3e-3, 4e-3), 1e-9
"""Learning rates of AdamW: with the last one nothing changes in two epochs."""


def grid(*lrs: float) -> list[str]:
    """A grid over learning rates, in this order, under a rule that may stop after one epoch."""
    space = f"sweep.space={{optimizer.lr: {{grid: {list(lrs)}}}}}"
    return [
        space, "sweep.search=grid", "sweep.trials=1", "optimizer.name=adamw",
        "sweep.scheduler.grace_epochs=1",
    ]  # fmt: skip


SWEEPS = {
    "random": RANDOM,
    "random-again": RANDOM,
    "grid-asha": [*grid(*LEARN, HOPELESS), "sweep.scheduler.factor=2"],
    "grid-asha-again": [*grid(*LEARN, HOPELESS), "sweep.scheduler.factor=2"],
    "grid-median": [*grid(*LEARN, HOPELESS), "sweep.scheduler.name=median"],
    "optuna": ["sweep.search=optuna", "sweep.trials=3", "sweep.scheduler.name=none"],
}


@pytest.fixture(scope="module")
def sweeps(cifarray: CommandLine, session_node: tuple[Node, Path]) -> dict[str, list[TrialRecord]]:
    """The trials of every sweep above, in the order in which they were made."""
    return run_sweeps(cifarray, session_node, SWEEPS)


def run_sweeps(
    cifarray: CommandLine, session_node: tuple[Node, Path], sweeps: dict[str, list[str]]
) -> dict[str, list[TrialRecord]]:
    """Run small sweeps over the digits, one after the other."""
    store = cifarray.store
    profile = load_profile("local").model_copy(update={"threads_per_worker": 1})
    manifest = load_manifest(store, "digits")
    for name, sets in sweeps.items():
        create(plan(load_job("tune-digits", [*SMALL, *sets]), profile, name=name), store, manifest)
    command = [sys.executable, "-m", "tests.integration.sweep_here", store.uri, *sweeps]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CIFARRAY_STATE_DIR", str(session_node[1]))
        known = {**os.environ, **client_environment(session_node[0])}
    done = subprocess.run(command, cwd=REPOSITORY, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: trials_of(Run(store, name), attempt=1) for name in sweeps}


def trials_of(run: Run, attempt: int) -> list[TrialRecord]:
    """What an attempt of a sweep left of its trials."""
    folder = run.key("attempts", str(attempt), "trials")
    return read_trials(run.store, folder, {}, run.spec().job.train.epochs)


def results(trials: list[TrialRecord]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The trials' parameters and their records, without ids and times."""
    return [(t.params, [without_times(record) for record in t.history]) for t in trials]


@pytest.mark.timeout(300)
def test_random_search_gives_the_same_trials_and_metrics_again(
    sweeps: dict[str, list[TrialRecord]],
) -> None:
    first = results(sweeps["random"])
    assert [len(history) for _, history in first] == [2, 2]
    assert first[0][0] != first[1][0]
    assert set(first[0][0]) == {"optimizer.lr", "model.dropout", "optimizer.name"}
    assert results(sweeps["random-again"]) == first


def test_grid_search_gives_the_same_trials_and_metrics_again(
    sweeps: dict[str, list[TrialRecord]],
) -> None:
    first = results(sweeps["grid-asha"])
    assert [params["optimizer.lr"] for params, _ in first] == [*LEARN, HOPELESS]
    assert results(sweeps["grid-asha-again"]) == first


@pytest.mark.parametrize("sweep", ["grid-asha", "grid-median"])
def test_a_hopeless_trial_is_stopped_early_and_the_first_is_not(
    sweeps: dict[str, list[TrialRecord]], sweep: str
) -> None:
    states = [(trial.state, len(trial.history)) for trial in sweeps[sweep]]
    assert states[0] == ("finished", 2)
    assert states[-1] == ("stopped early", 1)


def test_optuna_searches_the_whole_space(sweeps: dict[str, list[TrialRecord]]) -> None:
    trials = sweeps["optuna"]
    assert [trial.state for trial in trials] == ["finished"] * 3
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 3
    for trial in trials:
        assert 1e-4 <= trial.params["optimizer.lr"] <= 1e-1
        assert 0.0 <= trial.params["model.dropout"] <= 0.7
        assert trial.params["optimizer.name"] in ("sgd", "adam", "adamw", "rmsprop")


@pytest.mark.slow
def test_trials_of_two_workers_train_together(
    cifarray: CommandLine, session_node: tuple[Node, Path]
) -> None:
    larger = [*RANDOM, "sweep.workers_per_trial=2", "train.epochs=1"]
    trials = run_sweeps(cifarray, session_node, {"two-workers": larger})["two-workers"]
    assert [trial.state for trial in trials] == ["finished"] * 2
    assert [[r["world_size"] for r in trial.history] for trial in trials] == [[2], [2]]
