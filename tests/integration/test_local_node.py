"""A node of our own: private, on loopback, found again, and ended with all that it started."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.backends.follow import Follower
from cifarray.backends.local import processes
from cifarray.backends.local import state as node_state
from cifarray.backends.local.backend import LocalBackend
from cifarray.backends.local.node import (
    RUN_SLOT,
    api_of,
    client_environment,
    end_node,
    ensure_node,
    find_node,
)
from cifarray.backends.local.state import Node
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.backends.submit import launch
from cifarray.cli import output
from cifarray.cli.main import main
from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.store import Store
from tests.loopback import cutting_proxy
from tests.unit.runs.conftest import run_spec

LISTENING = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
PATIENCE_S = 60.0
DRIVER = re.compile(r"^driver (\d+)$", re.MULTILINE)


def python(code: str) -> str:
    """An entrypoint that runs this code."""
    return f"exec {shlex.join([sys.executable, '-u', '-c', code])}"


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def status_of(jobs: RayJobs, job_id: str) -> str:
    job = jobs.find(job_id)
    return job.status if job else "absent"


def inodes_of(pid: int) -> set[str]:
    """Inodes of the sockets that a process holds."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listening_addresses(pids: list[int]) -> set[str]:
    """Where processes listen, as hexadecimal addresses of /proc/net/tcp and tcp6."""
    inodes = set().union(*(inodes_of(pid) for pid in pids))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


def test_the_node_is_private_and_listens_on_loopback_only(ray_node: Node) -> None:
    with pytest.raises(ClusterError, match="requires a token"):
        RayJobs(ray_node.dashboard).version()
    with pytest.raises(ClusterError, match="refuses the token"):
        RayJobs(ray_node.dashboard, "another").version()
    assert find_node() == ray_node
    assert Path(ray_node.temp_dir).stat().st_mode & 0o777 == 0o700
    members = processes.family(ray_node.leader, ray_node.temp_dir)
    addresses = listening_addresses([member.pid for member in members])
    assert addresses
    assert addresses <= LOOPBACK


def test_its_raylet_was_told_the_port_of_its_agent_and_waits_for_no_file(ray_node: Node) -> None:
    members = processes.family(ray_node.leader, ray_node.temp_dir)
    commands = [processes.command_line(member.pid) for member in members]
    (raylet,) = [command for command in commands if "/raylet/raylet " in command]
    port = re.search(r"--dashboard-agent-listen-port (\d+)", processes.command_line(ray_node.pid))
    assert port and f"--dashboard_agent_listen_port={port[1]}" in raylet


def test_programs_on_this_machine_reach_it_with_the_environment_that_it_names(
    ray_node: Node,
) -> None:
    code = "import ray; ray.init(); print(ray.get_runtime_context().gcs_address)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **client_environment(ray_node)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.strip() == ray_node.address, ended.stderr


def test_the_log_arrives_whole_though_its_socket_is_cut(ray_node: Node) -> None:
    code = "import time\nfor n in range(400):\n    print(n, 'x' * 100)\n    time.sleep(0.01)"
    lines = [f"{number} {'x' * 100}" for number in range(400)]
    with cutting_proxy(ray_node.dashboard) as proxy:
        jobs = RayJobs(proxy.address, node_state.read_token())
        jobs.submit(python(code), "cut-log-1", {}, {})
        proxy.cut(after_bytes=6000, times=3)
        text = "".join(jobs.tail("cut-log-1"))
        assert proxy.cuts_left == 0, "nothing was cut"
        assert text == jobs.logs("cut-log-1")
    assert [line for line in text.splitlines() if line[:1].isdigit() and "x" * 100 in line] == lines
    assert status_of(api_of(ray_node), "cut-log-1") == "SUCCEEDED"


def test_a_job_finds_what_it_was_told_and_no_key_of_the_shell_that_started_the_node(
    ray_node: Node,
) -> None:
    code = "import json, os; print('TOLD', json.dumps(dict(os.environ)))"
    jobs = api_of(ray_node)
    jobs.submit(python(code), "environment-1", {"CIFARRAY_TOLD": "this"}, {})
    text = "".join(jobs.tail("environment-1"))
    told = json.loads(next(x for x in text.splitlines() if x.startswith("TOLD "))[5:])
    assert told["CIFARRAY_TOLD"] == "this"
    assert told["RAY_ADDRESS"] == ray_node.address
    assert not any(name.startswith("AWS_") for name in told)
    assert node_state.read_token() not in told.values()


def test_runs_take_turns_and_one_that_waits_can_be_stopped(
    ray_node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = api_of(ray_node)
    slot = {RUN_SLOT: 1.0}
    jobs.submit(python("import time; time.sleep(60)"), "first-1", {}, {}, slot)
    wait_until(lambda: status_of(jobs, "first-1") == "RUNNING")

    store = Store.open(str(tmp_path / "store"))
    run = Run.create(store, run_spec("second"))
    cluster = LocalBackend(Profile(name="local", kind="local"))
    cluster.start(output)
    job_id = launch(run, cluster)
    remarks: list[str] = []

    def stop_when_told(status: object, remark: str) -> None:
        remarks.append(remark)
        if "first-1" in remark:
            with pytest.raises(SystemExit):
                main(["stop", "second", "--store", store.uri])

    outcome = Follower(run, cluster, job_id).follow(stop_when_told, poll_s=0.1)
    assert outcome.state == "stopped"
    assert "waiting for first-1 to leave the node" in remarks
    assert jobs.stop("first-1")
    wait_until(lambda: not jobs.live_jobs())
    assert status_of(jobs, job_id) == "STOPPED"
    assert run.status().state == "stopped"
    assert run.attempt_numbers() == []


def test_a_driver_that_is_killed_ends_the_follower_and_leaves_the_record_alone(
    ray_node: Node, tmp_path: Path
) -> None:
    run = Run.create(Store.open(str(tmp_path / "store")), run_spec("killed"))
    jobs = api_of(ray_node)
    code = "import os, time; print('driver', os.getpid()); time.sleep(60)"
    jobs.submit(python(code), "killed-1", {}, {})
    cluster = LocalBackend.find(Profile(name="local", kind="local"))
    assert cluster is not None
    run.set_cluster(cluster.record("killed-1"))
    wait_until(lambda: DRIVER.search(jobs.logs("killed-1")) is not None)
    driver = DRIVER.search(jobs.logs("killed-1"))
    assert driver is not None
    os.kill(int(driver[1]), signal.SIGKILL)
    follower = Follower(run, cluster, "killed-1")
    outcome = follower.follow(lambda status, remark: None)
    assert outcome.state == "lost"
    assert "killed by signal 9, which happens when memory runs out" in outcome.cause
    assert run.status().state == "pending"
    assert any("driver" in line for line in follower.last_lines())


def test_two_at_once_start_one_node_and_what_a_kill_leaves_of_it_is_ended(
    monkeypatch: pytest.MonkeyPatch, cifarray_home: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    code = (
        "import dataclasses, json; from cifarray.backends.local.node import ensure_node;"
        "print(json.dumps(dataclasses.asdict(ensure_node(lambda text: None))))"
    )
    callers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (Node(**json.loads(caller.communicate(timeout=120)[0])) for caller in callers)
    try:
        assert first == second == ensure_node(print) == find_node()
        members = processes.family(first.leader, first.temp_dir)
        assert len(members) > 5
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: not processes.is_alive(first.leader))
        assert find_node() is None
    finally:
        ended = end_node()
    assert ended == first
    assert not any(processes.is_alive(member) for member in members)
    assert not Path(first.temp_dir).exists()
    left = {path.name for path in (cifarray_home / "state").iterdir()}
    assert left <= {node_state.LOCK_FILE, node_state.LOG_FILE}
