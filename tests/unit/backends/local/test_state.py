"""What is kept of a node: private, replaced at once, and forgiving when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifarray.backends.local import node as local_node
from cifarray.backends.local import state as node_state
from cifarray.backends.local.processes import boot_id, find_process
from cifarray.backends.local.state import Node
from cifarray.errors import ClusterError

NODE = Node(
    address="127.0.0.1:20001",
    dashboard="http://127.0.0.1:20002",
    pid=1,
    started=0,
    boot_id="another boot",
    temp_dir="/tmp/not-a-node",
)


def test_a_node_comes_back_as_it_was_recorded() -> None:
    node_state.record_node(NODE)
    assert node_state.read_node() == NODE
    node_state.forget_node()
    assert node_state.read_node() is None


def test_everything_is_for_its_owner_alone() -> None:
    node_state.record_node(NODE)
    node_state.write_token()
    folder = node_state.state_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in (folder / node_state.NODE_FILE, node_state.token_path()):
        assert path.stat().st_mode & 0o777 == 0o600


def test_every_node_gets_a_token_of_its_own() -> None:
    node_state.write_token()
    first = node_state.read_token()
    node_state.write_token()
    assert first and len(first) == 64
    assert node_state.read_token() != first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"address": "x"}', '{"a": 1}'])
def test_a_damaged_record_counts_as_none(content: str) -> None:
    (node_state.state_folder() / node_state.NODE_FILE).write_text(content)
    assert node_state.read_node() is None
    assert local_node.find_node() is None


def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIFARRAY_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert node_state.state_folder() == tmp_path / "xdg" / "cifarray"


def test_a_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "file" / "state"))
    with pytest.raises(ClusterError, match="CIFARRAY_STATE_DIR"):
        node_state.state_folder()


def test_a_second_process_waits_for_the_lock() -> None:
    waits: list[str] = []
    code = (
        "from cifarray.backends.local.state import locked\n"
        "with locked(lambda: None):\n"
        "    print(flush=True); input()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdin is not None
    other.stdout.readline()

    def on_wait() -> None:
        waits.append("waits")
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()

    with node_state.locked(on_wait):
        assert other.wait(timeout=20) == 0
    assert waits == ["waits"]
    other.stdin.close()
    other.stdout.close()


def test_a_live_process_that_does_not_answer_is_no_node() -> None:
    here = find_process(os.getpid())
    assert here is not None
    node_state.record_node(
        Node(NODE.address, "http://127.0.0.1:9", here.pid, here.started, boot_id(), NODE.temp_dir)
    )
    assert local_node.find_node() is None


def test_ending_a_node_of_another_boot_ends_no_process_and_forgets_it() -> None:
    node_state.record_node(NODE)
    assert local_node.end_node() == NODE
    assert node_state.read_node() is None
    assert local_node.end_node() is None
