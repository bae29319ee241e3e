"""A run beside a node that somebody else started on Ray's own ports leaves that as it was."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarray.backends.choice import backend_of
from cifarray.backends.local import processes
from cifarray.backends.local.node import is_free
from cifarray.backends.local.state import NODE_FILE, Node
from cifarray.backends.ray_jobs.backend import RayJobsBackend
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from cifarray.spec.profile import Profile
from tests.integration.command_line import CommandLine

RAYS_OWN_PORTS = (6379, 8265, 10001, 52365)
RAYS_FOLDER = Path("/tmp/ray")
ADDRESS_FILE = RAYS_FOLDER / "ray_current_cluster"
DASHBOARD = "http://127.0.0.1:8265"
START_TIMEOUT_S = 90.0
FIND_A_NODE = "import ray; ray.init(); print('FOUND', ray.get_runtime_context().gcs_address)"


@pytest.fixture
def foreigner(tmp_path: Path) -> dict[str, str]:
    """The environment of a person who has never heard of cifarray, with a home of their own."""
    ours = ("RAY_", "CIFARRAY_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    (tmp_path / "their-home").mkdir()
    return kept | {"HOME": str(tmp_path / "their-home")}


@pytest.fixture
def foreign_head(foreigner: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A head on Ray's own ports, started as its documentation says; its GCS address."""
    if not all(is_free(port) for port in RAYS_OWN_PORTS):
        pytest.skip("another Ray head has the default ports")
    before = ADDRESS_FILE.read_bytes() if ADDRESS_FILE.exists() else None
    log = tmp_path / "head.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"],
            env={**foreigner, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    leader = processes.find_process(head.pid)
    assert leader is not None
    try:
        wait_until_it_answers(head, log)
        session = RAYS_FOLDER / str(RayJobs(DASHBOARD).version()["session_name"])
        yield ADDRESS_FILE.read_text()
        shutil.rmtree(session, ignore_errors=True)
    finally:
        assert processes.end(leader, str(RAYS_FOLDER), grace_s=20.0) == []
        head.wait(timeout=10)
        if before is None:
            ADDRESS_FILE.unlink(missing_ok=True)
        else:
            ADDRESS_FILE.write_bytes(before)


def wait_until_it_answers(head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        try:
            RayJobs(DASHBOARD, patience_s=0.5).version()
            if "Ray runtime started" in log.read_text():
                return
        except ClusterError:
            pass
        time.sleep(0.3)
    raise AssertionError(log.read_text())


def node_that_a_plain_program_finds(environment: dict[str, str]) -> str:
    """What `ray.init()` without any argument joins."""
    ended = subprocess.run(
        [sys.executable, "-c", FIND_A_NODE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    found = [line for line in ended.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, ended.stderr
    return found[0].removeprefix("FOUND ")


@pytest.fixture
def own(cifarray: CommandLine, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line without a node yet; the one that it starts is ended."""
    command_line = cifarray.with_environment(CIFARRAY_STATE_DIR=str(tmp_path / "state"))
    yield command_line
    command_line.type("cluster", "down", "--yes")


@pytest.mark.slow
def test_a_run_works_beside_it_and_leaves_it_as_it_was(
    foreign_head: str, foreigner: dict[str, str], own: CommandLine, tmp_path: Path
) -> None:
    jobs = RayJobs(DASHBOARD)
    jobs.submit("sleep 600", "theirs-1", {}, {})
    session = jobs.version()["session_name"]
    words = ("train-digits", "--set", "train.epochs=1", "--workers", "1")
    run = own.submit(*words, "--name", "beside-a-foreign-head")
    assert run.status().state == "finished"
    cluster = run.status().cluster or {}
    assert cluster["dashboard"] != DASHBOARD
    assert cluster["address"] != foreign_head

    node = Node(**json.loads((tmp_path / "state" / NODE_FILE).read_text()))
    members = processes.family(node.leader, node.temp_dir)
    assert len(members) > 5
    assert own.json("cluster", "down")["ended"] is True
    assert not any(processes.is_alive(member) for member in members)
    assert not Path(node.temp_dir).exists()
    assert jobs.version()["session_name"] == session
    theirs = jobs.find("theirs-1")
    assert theirs is not None and theirs.status == "RUNNING"
    assert jobs.stop("theirs-1")
    assert ADDRESS_FILE.read_text() == foreign_head
    assert node_that_a_plain_program_finds(foreigner) == foreign_head
    assert own.json("cluster", "status") is None

    profile = Profile(name="theirs", kind="local", address=foreign_head, dashboard=DASHBOARD)
    reached = backend_of(profile)
    assert isinstance(reached, RayJobsBackend) and not reached.own
    assert reached.jobs().version()["session_name"] == session
    file = tmp_path / "theirs.yaml"
    file.write_text(f"kind: local\naddress: {foreign_head}\ndashboard: {DASHBOARD}\n")
    assert own.json("cluster", "status", "--cluster", file)["own"] is False
    refused = own.type("cluster", "up", "--cluster", file)
    assert refused.code == 2 and "which you start and end yourself" in refused.sentence
