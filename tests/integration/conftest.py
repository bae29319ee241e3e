"""What the tests on the session's Ray node share: a command line, a store, and a first run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarray.backends.local.state import Node
from cifarray.runs import Run
from tests.integration.command_line import CommandLine
from tests.integration.drivers import Drivers, drivers_of
from tests.s3 import S3Server

SLOW_EPOCHS = ("--set", "train.global_batch_size=8", "--set", "train.epochs=4")
"""Of train-digits: 144 steps make an epoch last a second or two, long enough to be hit within."""


@pytest.fixture(scope="session")
def cifarray(
    session_node: tuple[Node, Path], tmp_path_factory: pytest.TempPathFactory
) -> CommandLine:
    """The command line on the session's node, with a store that holds the digits."""
    folder = tmp_path_factory.mktemp("typed")
    environment = {
        "CIFARRAY_STATE_DIR": str(session_node[1]),
        "CIFARRAY_CACHE": str(folder / "cache"),
        "CIFARRAY_STORE": str(folder / "store"),
    }
    command_line = CommandLine(environment, folder)
    command_line("data", "prepare", "digits")
    return command_line


@pytest.fixture(scope="session")
def trained(cifarray: CommandLine) -> Run:
    """A training on two workers that nothing has disturbed."""
    return cifarray.submit("train-digits", *SLOW_EPOCHS, "--name", "undisturbed")


@pytest.fixture
def drivers(s3: S3Server, ray_node: Node, trained: Run) -> Iterator[Drivers]:
    """The undisturbed run's job once more, recorded in a bucket; nobody works on it yet."""
    with drivers_of(trained.spec().job, s3, ray_node) as drivers:
        yield drivers
