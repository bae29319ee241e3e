"""No input ends in a traceback, runs what it brings, or takes more than its share; see kinds.py.

An input that fails is tried again, alone, by the command that the failure prints.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.unit.fuzz.kinds import KINDS
from tests.unit.fuzz.mutation import Mutator

QUICK, ALL = 500, 10_000
"""Inputs of `make test` and of `make test-all`."""
MOST_UNMADE = 0.02
"""Of all inputs: values that no writer of YAML, JSON or zips takes."""
PER_PROCESS = 2_000
FRAGILE = """
import os, sys, time
from pathlib import Path
from cifarray.errors import JobError
from tests.unit.fuzz.watching import MOST_CPU_S, Watch
marker = Path(sys.argv[1])
def sound(): raise JobError("one sentence")
def traceback(): [][0]
def exits(): sys.exit(2)
def prints(): print("Traceback (most recent call last):")
def planted(): marker.touch()
def memory(): b"x" * (600 << 20)
def address(): bytearray(100 << 30)
def shell(): os.system("true")
def endless():
    while True:
        pass
def swallowed():
    while True:
        try:
            time.process_time()
        except Exception:
            pass
watch = Watch(marker)
for action in (sound, traceback, exits, prints, planted, memory, address, shell, endless,
               swallowed, sound):
    # What ends by itself has all the time that an input has, however slow the machine is.
    watch.most_cpu_s = 0.5 if action in (endless, swallowed) else MOST_CPU_S
    problem = watch.run(action).strip().splitlines()
    print(f"{action.__name__}: {problem[-1] if problem else ''}")
"""
CAUGHT = [
    ("sound", ""),
    ("traceback", "IndexError: list index out of range"),
    ("exits", ""),
    ("prints", "it printed a traceback"),
    ("planted", "planted code ran"),
    ("memory", " MiB"),
    ("address", "MemoryError"),
    ("shell", "it did os.system"),
    ("endless", "it took more of a processor's time"),
    ("swallowed", "it took more of a processor's time"),
    ("sound", ""),
]


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with the repository in its path."""
    command = [sys.executable, *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def _try(first: int, count: int) -> None:
    done = fuzz("-m", "tests.unit.fuzz", str(first), str(first + count - 1))
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    said = done.stdout.splitlines()[-1]
    assert said.startswith(f"0 of {count} inputs failed")
    unmade = int(said.split(", ")[1].split()[0])
    assert unmade <= MOST_UNMADE * count


@pytest.mark.timeout(900)
def test_no_input_is_more_than_a_sentence():
    _try(0, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(QUICK, QUICK + ALL, PER_PROCESS))
def test_no_further_input_is_more_than_a_sentence(first: int):
    _try(first, PER_PROCESS)


def test_what_is_fragile_is_caught(tmp_path: Path):
    done = fuzz("-c", FRAGILE, str(tmp_path / "marker"))
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ", 1) for line in done.stdout.splitlines()]
    assert len(lines) == len(CAUGHT)
    for (name, problem), (expected, sentence) in zip(lines, CAUGHT, strict=True):
        assert name == expected
        assert sentence in problem and bool(sentence) == bool(problem), (name, problem)


def test_an_input_that_fails_says_how_it_is_tried_again():
    """The same command line, with one kind that is deliberately fragile."""
    code = (
        "import sys\n"
        "from tests.unit.fuzz import __main__ as fuzz\n"
        "def fragile(samples, mutator, folder, marker):\n"
        "    content = mutator.data(b'{\"epochs\": 3}')\n"
        "    return lambda: __import__('json').loads(content)\n"
        "fuzz.KINDS.clear()\n"
        "fuzz.KINDS['fragile'] = fragile\n"
        "sys.exit(fuzz.main())\n"
    )
    done = fuzz("-c", code, "0", "9")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("input ")]
    assert failed
    number = failed[0].split(",")[0].removeprefix("input ")
    assert f"again: .venv/bin/python -m tests.unit.fuzz {number}" in done.stdout
    again = fuzz("-c", code, number)
    assert again.returncode == 1
    assert failed[0] in again.stdout


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_same_number_gives_the_same_changes(kind: str):
    tree = {"a": [1, 2.5, None, "text"], kind: {"b": [True, {}]}}
    for number in range(50):
        one, two = Mutator(number), Mutator(number)
        assert repr(one.value(tree)) == repr(two.value(tree))
        assert one.data(b"some bytes" * 20) == two.data(b"some bytes" * 20)


def test_changes_differ_from_what_they_begin_with():
    content, tree = b"some bytes " * 20, {"a": [1, 2, 3], "b": {"c": "text"}}
    changed = [Mutator(number).data(content) != content for number in range(200)]
    other = [repr(Mutator(number).value(tree)) != repr(tree) for number in range(200)]
    assert sum(changed) > 190 and sum(other) > 190
