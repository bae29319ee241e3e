"""What the driver and its children print is shown and kept, whatever becomes of either."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifarray.store import Store

REPOSITORY = Path(__file__).parents[3]
BEGIN = """
import os, subprocess, sys, time
from cifarray.driver.log import kept_log
from cifarray.store import Store

store = Store.open(sys.argv[1])
"""
SPEAKERS = """
with kept_log(store, "runs/r/driver.log"):
    print("printed", flush=True)
    print("printed as an error", file=sys.stderr, flush=True)
    subprocess.run(["sh", "-c", "echo from a child; echo error of a child >&2"], check=True)
    os.write(1, b"written past Python\\n")
    print("not flushed", end="")
print("afterwards")
print("afterwards, an error", file=sys.stderr)
"""
WHILE_IT_RUNS = """
with kept_log(store, "runs/r/driver.log", every_s=0.05):
    print("early", flush=True)
    for _ in range(200):
        if store.exists("runs/r/driver.log") and store.read("runs/r/driver.log") == b"early\\n":
            break
        time.sleep(0.05)
    else:
        sys.exit("nothing was stored before the end")
"""
FAILS = """
with kept_log(store, "runs/r/driver.log"):
    print("before", flush=True)
    raise SystemExit(3)
"""
TALKS_ON = """
with kept_log(store, "runs/r/driver.log"):
    print("begin", flush=True)
    sys.stdin.readline()
    for number in range(5000):
        print("line", number, "." * 40)
"""
NO_STORE = """
from pathlib import Path
Path(sys.argv[1]).write_text("no folder")
with kept_log(store, "runs/r/driver.log"):
    print("all the same", flush=True)
"""


def start(program: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )


def kept(folder: Path) -> str:
    return Store.open(str(folder)).read("runs/r/driver.log").decode()


def test_all_that_a_process_and_its_children_print_is_shown_and_kept(tmp_path: Path):
    process = start(SPEAKERS, tmp_path)
    shown, errors = process.communicate(timeout=60)
    lines = [
        "printed",
        "printed as an error",
        "from a child",
        "error of a child",
        "written past Python",
        "not flushed",
    ]
    assert kept(tmp_path) == "\n".join(lines)
    assert shown == "\n".join(lines) + "afterwards\n"
    assert errors == "afterwards, an error\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("program", "code", "log"),
    [(WHILE_IT_RUNS, 0, "early\n"), (FAILS, 3, "before\n")],
    ids=["while it grows", "when its driver fails"],
)
def test_the_log_is_stored_while_it_grows_and_when_its_driver_fails(
    tmp_path: Path, program: str, code: int, log: str
):
    process = start(program, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert kept(tmp_path) == log


def test_the_log_goes_on_when_nobody_looks_any_more(tmp_path: Path):
    process = start(TALKS_ON, tmp_path)
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "begin\n"
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(60) in (0, 120)  # 120: Python's own last flush to nobody
    lines = kept(tmp_path).splitlines()
    assert lines[0] == "begin"
    assert lines[-1].startswith("line 4999 ")
    assert len(lines) == 5001


def test_a_store_that_takes_no_log_costs_a_warning(tmp_path: Path):
    process = start(NO_STORE, tmp_path / "file")
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert shown == "all the same\n"
    assert errors.startswith("warning: the log could not be stored: ")
    assert errors.count("\n") == 1
