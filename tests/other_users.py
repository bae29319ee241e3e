"""Python as another user: one without a home, a name or an entry in /etc/passwd."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import cifarray

STRANGER = 12345
SMALL = "mount -t tmpfs -o size=64m none /dev/shm"
"""What docker gives a container; in a mount namespace of its own."""
PATIENCE_S = 240.0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the stranger owns; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="cifarray-test-"))
    try:
        os.chown(folder, STRANGER, STRANGER)
    except PermissionError:
        pytest.skip("only root may start a process as another user")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run_as(uid: int, code: str, **variables: str) -> str:
    """What code prints that runs as a user, with nothing but these variables; it has to succeed."""
    ended = subprocess.run(
        [_required_python(uid), "-c", textwrap.dedent(code)],
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        env={**_environment(), **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def in_container(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`cifarray` as the stranger, in a folder that it may not write, with 64 MB of /dev/shm."""
    python = _required_python(STRANGER)
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if subprocess.run([*unshare, SMALL], capture_output=True).returncode:
        pytest.skip("a /dev/shm of 64 MB requires a root that may mount")
    user = f"setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups"
    code = "from cifarray.cli.main import main; main()"
    return subprocess.run(
        [*unshare, f'{SMALL} && exec {user} "$@"', "sh", python, "-c", code, *words],
        cwd="/",
        env={**_environment(), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )


def _environment() -> dict[str, str]:
    """Nothing of this shell's but where cifarray and its packages lie."""
    places = dict.fromkeys(str(Path(each.__file__).parents[1]) for each in (cifarray, typer))
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(places),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _required_python(uid: int) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root may start a process as another user")
    python = _python_of(uid)
    if python is None:
        pytest.skip("no Python here that another user may run cifarray with")
    return python


@functools.cache
def _python_of(uid: int) -> str | None:
    """This Python, or the system's of the same version, if the user may run it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            tried = subprocess.run(
                [candidate, "-c", "import cifarray.cli.main, yaml"],
                user=uid,
                group=uid,
                extra_groups=[],
                cwd="/",
                env=_environment(),
                capture_output=True,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return candidate
    return None
