"""A training over two Ray nodes on two hosts, one of which is cut off in the middle of it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from cifarray.runs import Run, read_metrics
from tests.integration.command_line import CommandLine
from tests.integration.network_hosts import HERE, Host, Hosts, hosts, why_not
from tests.s3 import S3Server, serve_moto

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PATIENCE_S = 240.0
EPOCHS = 40
NODE = {
    "RAY_AUTH_MODE": "token",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "GLOO_SOCKET_IFNAME": "eth0",  # hosts share this machine's name, which leads elsewhere
    # A node counts as dead after some 10 s instead of 30.
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""What every node's environment holds."""


@dataclass
class Nodes:
    """A Ray cluster over several hosts."""

    network: Hosts
    environment: dict[str, str]
    folder: Path
    stack: ExitStack
    head: Host

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:8265"

    def start(self, host: Host, cpus: int, *words: str) -> None:
        """A Ray node on a host, which ends with the test."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += ["--node-ip-address", host.address, "--num-cpus", str(cpus), *words]
        log = (self.folder / f"{host.name}.log").open("wb")
        node = subprocess.Popen(
            host.command(*command, "--disable-usage-stats"),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.stack.callback(end, node)

    def ask(self, path: str) -> Any:
        """What the head's dashboard answers."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(
            f"{self.dashboard}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]

    def alive(self) -> int:
        """How many nodes the head counts."""
        nodes = self.ask("/nodes?view=summary")["summary"]
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def actors(self) -> dict[str, str]:
        """The actors that live, by class, and the address of the node of each."""
        nodes = self.ask("/api/v0/nodes")["result"]["result"]
        addresses = {node["node_id"]: node["node_ip"] for node in nodes}
        actors = self.ask("/api/v0/actors")["result"]["result"]
        living = [actor for actor in actors if actor["state"] == "ALIVE"]
        return {actor["class_name"]: addresses[actor["node_id"]] for actor in living}

    def join(self) -> Host:
        """One more host with a node of two CPUs."""
        host = self.network.add()
        self.start(host, 2, "--address", f"{self.head.address}:6379")
        return host


def end(node: "subprocess.Popen[bytes]") -> None:
    """End a node and everything that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(node.pid, number)
        with suppress(subprocess.TimeoutExpired):
            node.wait(timeout=20)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A head of one CPU, so that of two workers one has to be elsewhere."""
    if reason := why_not():
        pytest.skip(reason)
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    with ExitStack() as stack:
        network = stack.enter_context(hosts())
        server = S3Server(stack.enter_context(serve_moto(HERE)), "tests", "tests")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = kept | NODE | server.environment | {"RAY_AUTH_TOKEN_PATH": str(token)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        environment["CIFARRAY_STORE"] = server.new_store().uri
        environment["CIFARRAY_STATE_DIR"] = str(tmp_path / "state")
        head = network.add()
        made = Nodes(network, environment, tmp_path, stack, head)
        temp_dir = stack.enter_context(short_folder())
        words = ("--head", "--dashboard-host", head.address, "--temp-dir", temp_dir)
        made.start(head, 1, *words)
        jobs = RayJobs(made.dashboard, token.read_text(), patience_s=90.0)
        jobs.version()
        yield made


def short_folder() -> "tempfile.TemporaryDirectory[str]":
    """Ray's sockets lie below it, and their paths must be short."""
    return tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True)


@pytest.fixture
def cifarray(nodes: Nodes) -> CommandLine:
    """The command line of somebody on a third host, with a profile that names the head."""
    profile = nodes.folder / "two-nodes.yaml"
    profile.write_text(
        f"kind: local\nworkers: 2\ncpus_per_worker: 1\nthreads_per_worker: 1\n"
        f"address: {nodes.head.address}:6379\ndashboard: {nodes.dashboard}\n"
    )
    names = ("CIFARRAY_STORE", "CIFARRAY_STATE_DIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
    ours = {name: nodes.environment[name] for name in names}
    aws = {name: value for name, value in nodes.environment.items() if name.startswith("AWS_")}
    return CommandLine(ours | aws, nodes.folder)


def until(what: str, happened: Any, patience_s: float = PATIENCE_S) -> Any:
    """Wait until something is true; what it returned."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(ClusterError):
            if found := happened():
                return found
        time.sleep(0.5)
    pytest.fail(f"{what} did not happen within {patience_s:.0f} s")


def test_a_training_goes_on_after_one_of_its_two_hosts_was_cut_off(
    nodes: Nodes, cifarray: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    for name, value in cifarray.environment.items():
        monkeypatch.setenv(name, value)
    second = nodes.join()
    cifarray("data", "prepare", "digits")
    words = ("--cluster", "two-nodes.yaml", "--set", f"train.epochs={EPOCHS}", "--name", "cut")
    until("two nodes", lambda: nodes.alive() == 2)
    cifarray("submit", "train-digits", *words, "--detach")
    run = Run(cifarray.store, "cut")
    until("three epochs", lambda: len(epochs(run)) >= 3)
    second.cut_off()
    until("a word on the failure", lambda: "failures" in (run.status().progress or {}))
    reached = len(epochs(run))
    assert reached < EPOCHS
    assert "workers were replaced once" in cifarray("status", "cut")
    nodes.join()
    until("the end", lambda: run.status().state == "finished")
    assert [record["epoch"] for record in epochs(run)] == list(range(1, EPOCHS + 1))
    assert run.report()["world_size"] == 2
    assert run.status().attempts == 1


def test_a_sweep_leaves_nothing_on_a_workers_node_that_an_autoscaler_would_wait_for(
    nodes: Nodes, cifarray: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    """Its trials, which read the data first, have room on the second host alone."""
    nodes.join()
    cifarray("data", "prepare", "digits")
    profile = nodes.folder / "two-nodes.yaml"
    wide = profile.read_text().replace(
        "workers: 2\ncpus_per_worker: 1", "workers: 1\ncpus_per_worker: 1.5"
    )
    profile.write_text(wide)
    until("two nodes", lambda: nodes.alive() == 2)
    few = ("--set", "sweep.trials=1", "--set", "train.epochs=1", "--name", "left")
    cifarray("submit", "tune-digits", "--cluster", profile.name, *few, "--detach")
    for name, value in cifarray.environment.items():
        monkeypatch.setenv(name, value)
    run = Run(cifarray.store, "left")
    until("the end", lambda: run.status().state == "finished")
    until("the driver's end", lambda: "JobSupervisor" not in nodes.actors())
    left = nodes.actors()
    assert {"_AutoscalingCoordinatorActor", "_StatsActor"} <= set(left)
    assert set(left.values()) == {nodes.head.address}, left


def epochs(run: Run) -> list[dict[str, Any]]:
    """The records of the run's only attempt."""
    return read_metrics(run.store, run.key("attempts", "1"))
