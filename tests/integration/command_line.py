"""`cifarray` as a person types it: a process of its own, with its environment and folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarray.runs import Run
from cifarray.store import Store

CIFARRAY = Path(sys.executable).with_name("cifarray")
PATIENCE_S = 150.0


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """Its error: the last line, which must be one sentence and no traceback."""
        assert "Traceback" not in self.err, self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("error: "), self.err
        return last.removeprefix("error: ")


@dataclass(frozen=True)
class CommandLine:
    """Where commands are typed."""

    environment: dict[str, str]
    folder: Path

    @property
    def store(self) -> Store:
        """The store that its commands use."""
        endpoint = self.environment.get("AWS_ENDPOINT_URL_S3")
        return Store.open(self.environment["CIFARRAY_STORE"], endpoint)

    def with_environment(self, **variables: str) -> "CommandLine":
        """The same place with other variables."""
        return replace(self, environment=self.environment | variables)

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Begin a command; its output waits in pipes."""
        return subprocess.Popen(
            [CIFARRAY, *words],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, *words: str | Path) -> Ended:
        """Run a command to its end, whatever that is."""
        return wait_for(self.start(*words))

    def __call__(self, *words: str | Path) -> str:
        """Run a command that has to succeed; what it prints."""
        ended = self.type(*words)
        assert ended.code == 0, f"cifarray {words} ended with {ended.code}: {ended.err}"
        return ended.out

    def json(self, *words: str | Path) -> Any:
        """Run a command that has to succeed; the data that it prints."""
        return json.loads(self(*words, "--json"))

    def submit(self, *words: str | Path) -> Run:
        """Submit a job and follow it to its end, which has to be a good one; its run."""
        return Run.open(self.store, self.json("submit", *words)["run_id"])


def wait_for(command: "subprocess.Popen[str]") -> Ended:
    """Wait until a command has ended; ends it if that takes too long."""
    try:
        out, err = command.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        command.kill()
        out, err = command.communicate()
        raise AssertionError(f"{command.args!r} took too long: {out}{err}") from None
    return Ended(command.returncode, out, err)


def wait_until(true: Callable[[], bool], what: str, command: "subprocess.Popen[str]") -> None:
    """Look again and again until it is true, as long as the command runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if command.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen: {wait_for(command)}")
        time.sleep(0.02)
