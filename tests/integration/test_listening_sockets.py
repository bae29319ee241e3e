"""Whatever listens while a run trains on one machine, no other machine reaches."""

import sys
from pathlib import Path

import pytest

from cifarray.backends.local import processes
from cifarray.backends.local.state import Node
from cifarray.runs import Run
from tests.integration.command_line import CommandLine, wait_until
from tests.listening import is_loopback, listening_on

WORDS = ("train-digits", "--set", "train.global_batch_size=8", "--set", "train.epochs=30")


def is_worker(process: processes.Process) -> bool:
    try:
        return b"RayTrainWorker" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_socket_of_a_training_on_one_machine_is_open_to_others(
    cifarray: CommandLine, session_node: tuple[Node, Path]
) -> None:
    node = session_node[0]
    command = cifarray.start("submit", *WORDS, "--name", "listens")
    run = Run(cifarray.store, "listens")
    try:
        wait_until(lambda: len(run.metrics()) > 0, "the first epoch", command)
        members = processes.family(node.leader, node.temp_dir)
        workers = [member.pid for member in members if is_worker(member)]
        assert len(workers) == 2
        found = listening_on(workers)
        assert found, "torch's rendezvous and gloo listen somewhere"
        assert {address for address in found if not is_loopback(address)} == set()
    finally:
        cifarray("stop", "listens")
        command.communicate(timeout=60)
