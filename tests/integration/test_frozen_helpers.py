"""A followed run finishes though a helper process of its Ray node stands still for a while."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cifarray.backends.local import processes
from cifarray.backends.local.node import end_node, ensure_node
from cifarray.backends.local.state import Node
from cifarray.errors import RunNotFoundError
from cifarray.runs import Run
from tests.integration.command_line import CommandLine, wait_for, wait_until
from tests.integration.conftest import SLOW_EPOCHS

FROZEN_S = 15.0
HELPERS = {
    "dashboard": r"\S+ \S*dashboard/dashboard\.py |ray-dashboard-",
    "dashboard agent": r"\S+ (-u )?\S*dashboard/agent\.py |ray::DashboardAgent",
    "GCS server": r"\S*gcs/gcs_server ",
    "raylet": r"\S*raylet/raylet ",
    "job supervisor": r"ray::_?JobSupervisor",
}
"""How the command line of each begins: the raylet's names the agent's too."""


def pids_of(node: Node, helper: str) -> list[int]:
    """The processes of a node that are this helper."""
    members = processes.family(node.leader, node.temp_dir)
    lines = {member.pid: processes.command_line(member.pid) for member in members}
    return [pid for pid, line in lines.items() if re.match(HELPERS[helper], line)]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def epochs_done(cifarray: CommandLine, name: str) -> int:
    try:
        return int((Run.open(cifarray.store, name).status().progress or {}).get("done") or 0)
    except RunNotFoundError:
        return 0


def finishes(cifarray: CommandLine, node: Node, helper: str, name: str) -> None:
    following = cifarray.start("submit", "train-digits", *SLOW_EPOCHS, "--name", name)
    wait_until(lambda: epochs_done(cifarray, name) >= 1, "its first epoch", following)
    pids = pids_of(node, helper)
    assert pids, f"no {helper} found"
    with stopped(pids):
        time.sleep(FROZEN_S)
        seen = cifarray.json("status", name)["state"]
        assert seen in ("running", "finished")
    ended = wait_for(following)
    assert ended.code == 0, ended.err
    status = Run.open(cifarray.store, name).status()
    assert (status.state, status.attempts) == ("finished", 1)


def test_a_followed_run_finishes_though_the_dashboard_stands_still(
    cifarray: CommandLine, ray_node: Node
) -> None:
    finishes(cifarray, ray_node, "dashboard", "frozen-dashboard")


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, str]]:
    """A node of this module's own, which may come to harm."""
    state = str(tmp_path_factory.mktemp("frozen"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CIFARRAY_STATE_DIR", state)
        node = ensure_node(print)
    yield node, state
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CIFARRAY_STATE_DIR", state)
        end_node()


@contextmanager
def busy_cores(loops: int) -> Iterator[None]:
    """Keep the cores busy with that many endless loops."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()


@pytest.mark.slow
@pytest.mark.parametrize("loops", [0, 4])
@pytest.mark.parametrize("helper", HELPERS)
def test_a_followed_run_finishes_though_any_helper_stands_still(
    cifarray: CommandLine, own_node: tuple[Node, str], helper: str, loops: int
) -> None:
    node, state = own_node
    there = cifarray.with_environment(CIFARRAY_STATE_DIR=state)
    with busy_cores(loops):
        finishes(there, node, helper, f"frozen-{helper.replace(' ', '-').lower()}-{loops}")


def test_a_second_seed_that_waits_is_failed_by_nobody(
    cifarray: CommandLine, ray_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = cifarray.start(
        "submit", "train-digits", *SLOW_EPOCHS, "--name", "seeded", "--seeds", "2"
    )
    wait_until(lambda: bool(seeds_of(cifarray)), "the runs", following)
    first, second = sorted(seeds_of(cifarray))
    wait_until(lambda: epochs_done(cifarray, first) >= 1, "its first epoch", following)
    with stopped(pids_of(ray_node, "dashboard")):
        time.sleep(FROZEN_S)
        assert Run.open(cifarray.store, second).status().state == "pending"
    ended = wait_for(following)
    assert ended.code == 0, ended.err
    assert Run.open(cifarray.store, second).status().state == "finished"


def seeds_of(cifarray: CommandLine) -> list[str]:
    found = [name for name in cifarray.store.folders("runs") if name.startswith("seeded")]
    return found if len(found) == 2 else []
