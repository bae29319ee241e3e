"""Whose processes a node's are, and that ending them ends those and no others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cifarray.backends.local import processes
from cifarray.backends.local.processes import Process, end, family, find_process, is_alive

MARK = "/tmp/cifarray-of-this-test"
TREE = f"""
import subprocess, sys, time
child = [sys.executable, "-c", "import time; time.sleep(60)", "{MARK}"]
inside = subprocess.Popen(child)
outside = subprocess.Popen(child, start_new_session=True)
stubborn = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);"
    "time.sleep(60)", "{MARK}"], stdout=subprocess.PIPE)
stubborn.stdout.readline()
print(inside.pid, outside.pid, stubborn.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def tree() -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A leader, a child in its session, one in another session, one that ignores SIGTERM."""
    leader = subprocess.Popen(
        [sys.executable, "-c", TREE], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert leader.stdout is not None
    children = [int(pid) for pid in leader.stdout.readline().split()]
    yield leader, children
    for pid in (leader.pid, *children):
        if find_process(pid):
            os.kill(pid, signal.SIGKILL)
    leader.wait()
    leader.stdout.close()


def _process(pid: int) -> Process:
    found = find_process(pid)
    assert found is not None
    return found


def test_a_family_is_the_session_and_the_descendants(
    tree: tuple["subprocess.Popen[str]", list[int]],
) -> None:
    leader, children = tree
    members = family(_process(leader.pid), MARK)
    assert {member.pid for member in members} == {leader.pid, *children}
    assert os.getpid() not in {member.pid for member in members}


def test_ending_a_family_ends_all_of_it_and_nothing_else(
    tree: tuple["subprocess.Popen[str]", list[int]],
) -> None:
    leader, children = tree
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", MARK])
    try:
        assert end(_process(leader.pid), MARK, grace_s=1.0) == []
        assert not any(find_process(pid) for pid in (leader.pid, *children))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_members_of_a_dead_leaders_session_count_if_they_bear_the_mark(
    tree: tuple["subprocess.Popen[str]", list[int]],
) -> None:
    leader, (inside, _, stubborn) = tree
    recorded = _process(leader.pid)
    leader.kill()
    leader.wait()
    assert {member.pid for member in family(recorded, MARK)} == {inside, stubborn}
    assert family(recorded, "/tmp/another-folder") == []
    assert {member.pid for member in family(recorded, os.getcwd())} == {inside, stubborn}


def test_another_process_with_the_same_pid_is_not_touched() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    try:
        real = _process(other.pid)
        recorded = Process(other.pid, started=real.started - 1)
        assert not is_alive(recorded)
        assert end(recorded, MARK, grace_s=0.2) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_process_that_waits_for_its_parent_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while find_process(child.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert find_process(child.pid) is None
    child.wait()


def test_a_name_with_brackets_and_spaces_does_not_confuse() -> None:
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'a) R (b ', 0, 0, 0);"
        "print(flush=True); sys.stdin.read()"
    )
    named = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert named.stdout is not None and named.stdin is not None
    named.stdout.readline()
    assert _process(named.pid).parent == os.getpid()
    named.communicate()


def test_the_boot_id_is_stable() -> None:
    assert processes.boot_id() == processes.boot_id() != ""


def test_a_recorded_process_is_judged_only_where_it_can_be_seen() -> None:
    own = processes.this_process()
    assert processes.recorded_is_alive(own) is True
    assert processes.recorded_is_alive(own | {"started": own["started"] - 1}) is False
    with subprocess.Popen(["sleep", "60"]) as child:
        found = processes.find_process(child.pid)
        assert found is not None
        recorded = own | {"pid": child.pid, "started": found.started}
        os.kill(child.pid, signal.SIGSTOP)
        assert processes.recorded_is_alive(recorded) is True, "stopped, not gone"
        child.kill()
    assert processes.recorded_is_alive(recorded) is False
    elsewhere: list[dict[str, object]] = [
        {"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"pid": None}, {"pid": -1},
        {"pid": 1 << 70}, {"started": "soon"},
    ]  # fmt: skip
    hidden = {name: own[name] for name in ("host", "pid", "started")}  # as by a sandbox
    assert processes.recorded_is_alive(hidden) is None
    for other in (*({**recorded, **each} for each in elsewhere), {}):
        assert processes.recorded_is_alive(other) is None
