"""`cluster down` and `cluster status` of a node that lives and does not answer."""

import subprocess
from collections.abc import Iterator

import pytest

from cifarray.backends.local.processes import boot_id, find_process
from cifarray.backends.local.state import Node, read_node, record_node
from tests.unit.cli.conftest import Type


@pytest.fixture
def silent_node() -> Iterator["subprocess.Popen[bytes]"]:
    """The leader of a node of ours whose dashboard does not answer, as while it is stopped."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as leader:
        found = find_process(leader.pid)
        assert found is not None
        dashboard = "http://127.0.0.1:9"
        record_node(Node("127.0.0.1:1", dashboard, leader.pid, found.started, boot_id(), "/none"))
        yield leader
        leader.kill()


def test_a_node_that_does_not_answer_is_not_taken_for_idle(
    typed: Type, silent_node: "subprocess.Popen[bytes]"
) -> None:
    shown = typed("cluster", "down")
    assert shown.code == 2
    assert "whatever runs on the Ray node, which does not answer; add --yes to stop it" in shown.err
    assert silent_node.poll() is None
    shown = typed("cluster", "status")
    assert shown.code == 1 and "does not answer" in shown.err
    shown = typed("cluster", "down", "--yes")
    assert shown.code == 0, shown.err
    assert silent_node.wait(10) is not None
    assert read_node() is None
