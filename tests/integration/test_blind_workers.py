"""Workers that were promised GPUs and see none, on a node that says it has some."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from cifarray.store import Store
from cifarray.store.layout import FAILURES
from tests.integration.blind_workers import PLACE

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_workers_that_see_no_gpu_say_so_together_and_are_not_tried_again(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # sockets lie below it
        command = [sys.executable, "-m", "tests.integration.blind_workers", store.uri, short]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    said = [line for line in ended.stdout.splitlines() if line.startswith("ENDED ")]
    assert len(said) == 1, ended.stdout + ended.stderr
    assert said[0].startswith("ENDED the worker on ")
    assert "should have a GPU, but torch " in said[0]
    assert store.list(PLACE.key(FAILURES)) == []
