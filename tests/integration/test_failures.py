"""Runs that fail: at once where the network's own code is wrong, and with a post-mortem kept."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarray.runs import Run
from cifarray.store import Store
from tests.conftest import REPOSITORY
from tests.integration.command_line import CommandLine, Ended

NETWORK = """
import os, signal
import torch.distributed as dist
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, classes)
        self.steps = 0

    def forward(self, images):
        self.steps += self.training and len(images) > 2  # not those of the check before training
        alone = not dist.is_initialized() or dist.get_rank() == 1
        if self.steps == 3 and alone:
            HAPPENS
        return self.head(self.body(images))


def net(num_classes, in_channels, image_size):
    with open("BUILT", "a") as file:
        file.write(f"{os.getpid()}\\n")
    return Net(in_channels, num_classes)
"""


@dataclass(frozen=True)
class Failed:
    """A run that has failed: what its command said, and how many workers built a network."""

    run: Run
    ended: Ended
    workers_built: int
    why: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The last line of what the command said; tracebacks of the log may stand before it."""
        return self.ended.err.strip().splitlines()[-1]


def fail(
    cifarray: CommandLine,
    folder: Path,
    name: str,
    happens: str,
    max_failures: int,
    job: str = "train-digits",
    words: Sequence[str] = (),
) -> Failed:
    """Submit a job whose network's code ends so in rank 1's third step."""
    built, code = folder / "built", folder / "code"
    code.mkdir()
    text = NETWORK.replace("HAPPENS", happens).replace("BUILT", str(built))
    (code / "odd.py").write_text(text)
    profile = yaml.safe_load((REPOSITORY / "cluster" / "local.yaml").read_text())
    del profile["store"]
    (folder / "few.yaml").write_text(yaml.safe_dump(profile | {"max_failures": max_failures}))
    ended = cifarray.type(
        "submit", job, "--code", code, "--set", "model.name=odd:net", "--set", "train.epochs=2",
        *words, "--name", name, "--cluster", folder / "few.yaml",
    )  # fmt: skip
    why = cifarray.json("status", name, "--why")
    return Failed(Run(cifarray.store, name), ended, len(built.read_text().split()), why)


@pytest.fixture(scope="module")
def wrong(cifarray: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """A run whose code raises in one rank alone, while the other waits for it."""
    raising = 'raise ValueError("the width has to be even")'
    return fail(cifarray, tmp_path_factory.mktemp("wrong"), "wrong-code", raising, 3)


def test_an_error_of_the_networks_code_ends_the_run_with_its_first_workers(wrong: Failed) -> None:
    assert wrong.ended.code == 1
    assert wrong.sentence.endswith("ValueError: the width has to be even (odd.py, line 18)")
    assert "in after_exception" not in wrong.ended.err  # Ray's own traceback of the end
    assert wrong.workers_built == 2
    assert wrong.run.status().state == "failed"


def test_the_workers_traceback_and_its_rank_are_kept(wrong: Failed) -> None:
    assert wrong.why["complete"] is True
    assert wrong.why["cause"]["sentence"].endswith("(odd.py, line 18)")
    assert wrong.why["worker"]["rank"] == 1
    assert wrong.why["attempt"] == 1
    kept = json.dumps(wrong.why["workers"]) + json.dumps(wrong.why["driver"])
    assert "Traceback (most recent call last)" in kept
    assert "the width has to be even" in kept
    assert wrong.why["job"]["job"]["model"]["name"] == "odd:net"


def test_why_needs_the_store_alone(wrong: Failed, cifarray: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(cifarray.environment["CIFARRAY_STORE"], tmp_path / "copy")
    elsewhere = cifarray.with_environment(
        CIFARRAY_STATE_DIR=str(tmp_path / "state"), CIFARRAY_STORE=str(tmp_path / "copy")
    )
    shown = elsewhere("status", wrong.run.id, "--why")
    assert "cause      ValueError: the width has to be even" in shown or (
        "cause      training failed: ValueError: the width has to be even" in shown
    )
    assert "worker     rank 1 on " in shown
    store = Store.open(str(tmp_path / "copy"))
    assert f"log        {store.uri}/runs/{wrong.run.id}/attempts/1/driver.log" in shown


def test_a_worker_that_is_killed_is_replaced_and_then_told_of(
    cifarray: CommandLine, tmp_path: Path
) -> None:
    killing = "os.kill(os.getpid(), signal.SIGKILL)"
    killed = fail(cifarray, tmp_path, "killed-workers", killing, max_failures=1)
    assert killed.ended.code == 1
    assert killed.workers_built == 4
    assert "the worker's process was killed from outside or crashed" in killed.sentence
    assert killed.why["worker"]["rank"] == 1
    assert killed.why["worker"]["host"]
    failures = [record["workers"] for record in killed.why["failures"]]
    assert len(failures) == 2
    assert all("killed from outside" in workers["1"] for workers in failures)
    assert any("SIGKILL" in event or "died" in event for event in killed.why["ray_events"])


def test_a_trial_whose_code_is_wrong_is_tried_once(cifarray: CommandLine, tmp_path: Path) -> None:
    raising = 'raise ValueError("the width has to be even")'
    few = ("--set", "sweep.trials=2", "--set", "sweep.space={optimizer.lr: {uniform: [0.1, 0.2]}}")
    swept = fail(cifarray, tmp_path, "wrong-sweep", raising, 3, "tune-digits", few)
    assert (
        "none of 2 trials finished an epoch: ValueError: the width has to be even" in swept.sentence
    )
    assert swept.workers_built == 2
