"""A file is swapped only while it is what was expected, wherever a writer is stopped or killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from cifarray.errors import StoreAwayError
from cifarray.store import Store
from cifarray.store.swap import ClaimedError, delete, swap
from tests.conftest import REPOSITORY
from tests.preloaded import WITHOUT_LOCKS, preloaded

STOPPED = """
import os, signal, sys
from pathlib import Path
from cifarray.store.swap import swap
def is_expected():
    os.kill(os.getpid(), signal.SIGSTOP)  # after this its answer is acted on
    return True
print(swap(Path(sys.argv[1]), b"of the one that was stopped", is_expected))
"""
COUNTING = """
import json, sys
from cifarray.store import Store
store, done = Store.open(sys.argv[1]), 0
while not store.exists("enough"):
    data, tag = store.read_tagged("counter")
    value = json.loads(data)
    value = {"count": value["count"] + 1, "by": sys.argv[2], "nonce": done}
    done += store.replace("counter", json.dumps(value).encode(), tag) is not None
print(done)
"""
LINKS_FAIL = """
import os
try:
    os.link("/etc/hostname", "link")
except PermissionError:
    pass
else:
    raise SystemExit("this file system has hard links")
"""
CONDITIONAL = """
import sys
from cifarray.store import Store
store = Store.open(sys.argv[1])
first = store.create("a/lease", b"1")
assert first and store.create("a/lease", b"2") is None
second = store.replace("a/lease", b"3", first)
assert second and store.replace("a/lease", b"4", first) is None
store.upload(__import__("pathlib").Path("/etc/hostname"), "a/file")
assert store.read("a/lease") == b"3"
store.delete_folder("a")
assert store.list() == []
"""


@contextmanager
def python(code: str, *words: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def answer_of(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def wait_until_stopped(process: "subprocess.Popen[str]") -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def test_one_that_is_stopped_before_its_last_step_blocks_nobody_and_overwrites_nothing(
    tmp_path: Path,
) -> None:
    store = Store.open(str(tmp_path))
    tag = store.create("runs/a/lease.json", b"first")
    assert tag is not None
    with python(STOPPED, str(tmp_path / "runs/a/lease.json")) as stopped:
        wait_until_stopped(stopped)
        began = time.monotonic()
        store.write("runs/a/other", b"")
        assert store.create("runs/b/lease.json", b"") is not None
        assert time.monotonic() - began < 0.5, "another key waits for nobody"
        assert store.replace("runs/a/lease.json", b"of the next", tag) is not None
        assert time.monotonic() - began < 5
        os.kill(stopped.pid, signal.SIGCONT)
        wait_until_stopped(stopped)  # its claim was broken, so that it looks again
        assert store.read("runs/a/lease.json") == b"of the next"
        stopped.kill()


def test_a_deleted_file_does_not_come_back_by_one_that_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "lease.json"
    file.write_bytes(b"first")
    with python(STOPPED, str(file)) as stopped:
        wait_until_stopped(stopped)
        delete(file)
        os.kill(stopped.pid, signal.SIGCONT)
        wait_until_stopped(stopped)
        assert not file.exists()
        stopped.kill()


def test_writers_that_are_stopped_at_random_hold_up_no_other_and_lose_no_change(
    tmp_path: Path,
) -> None:
    store, random = Store.open(str(tmp_path)), Random(12)
    store.create("counter", b'{"count": 0}')
    with python(COUNTING, str(tmp_path), "a") as first, python(COUNTING, str(tmp_path), "b") as b:
        while json.loads(store.read("counter"))["count"] < 20:
            time.sleep(0.01)
        ours = 0
        for _ in range(20):
            time.sleep(random.uniform(0, 0.02))
            os.kill(first.pid, signal.SIGSTOP)
            began, done = time.monotonic(), False
            while not done:
                data, tag = store.read_tagged("counter")
                value = {"count": json.loads(data)["count"] + 1, "by": "us", "nonce": ours}
                done = store.replace("counter", json.dumps(value).encode(), tag) is not None
            assert time.monotonic() - began < 5
            ours += 1
            os.kill(first.pid, signal.SIGCONT)
        store.write("enough", b"")
        theirs = int(answer_of(first)) + int(answer_of(b))
    assert json.loads(store.read("counter"))["count"] == ours + theirs
    store.delete(["enough"])
    assert [path.name for path in tmp_path.iterdir()] == ["counter"], "nothing is left beside it"


def test_a_lock_that_somebody_holds_on_a_file_of_the_store_hangs_nobody(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    tag = store.create("status.json", b"1")
    assert tag is not None
    with subprocess.Popen(["flock", tmp_path / ".cifarray-lock", "sleep", "30"]) as holder:
        began = time.monotonic()
        assert store.replace("status.json", b"2", tag) is not None
        store.write("other", b"")
        store.delete(["other"])
        assert time.monotonic() - began < 2
        holder.kill()


def test_a_claim_that_cannot_be_broken_is_waited_for_and_its_holder_named(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("status.json", b"1")
    file, told = tmp_path / "status.json", []

    def is_expected() -> bool:  # while the claim is held, another one asks
        claim = next(path for path in tmp_path.iterdir() if path.is_dir())
        held = next(claim.iterdir())
        (claim / "somewhere:4711:0123").mkdir()  # no file that could be deleted
        held.unlink()
        with pytest.raises(ClaimedError) as caught:
            swap(file, b"2", lambda: True, patience_s=0.3, broken_after_s=0.05)
        told.append(str(caught.value))
        with pytest.raises(StoreAwayError) as away:
            store.replace("status.json", b"2", store.read_tagged("status.json")[1])
        told.append(str(away.value))
        (claim / "somewhere:4711:0123").rmdir()
        return False

    assert not swap(file, b"3", is_expected)
    assert told[0] == "process 4711 on somewhere"
    assert told[1].startswith("cannot write status.json in ")
    assert "it is being written by process 4711 on somewhere; try again" in told[1]
    assert file.read_bytes() == b"1"


def test_a_writer_that_was_killed_leaves_its_claim_to_the_next(tmp_path: Path) -> None:
    file = tmp_path / "lease.json"
    file.write_bytes(b"first")
    with python(STOPPED, str(file)) as killed:
        wait_until_stopped(killed)
        killed.kill()
    assert swap(file, b"second", lambda: file.read_bytes() == b"first")
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_a_file_system_without_flock_and_hard_links_holds_a_store(tmp_path: Path) -> None:
    shim = preloaded(WITHOUT_LOCKS, tmp_path)
    with python(LINKS_FAIL + CONDITIONAL, str(tmp_path / "store"), **shim) as writer:
        assert answer_of(writer) == ""
