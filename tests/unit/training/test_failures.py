"""Which errors come again when a step is tried again, distinguished from what the outside did."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from cifarray.errors import JobError, StoreAwayError
from cifarray.runs.failures.causes import CODE_PREFIX
from cifarray.training.failures import is_permanent


def error_of(raising: object, *given: object) -> BaseException:
    """What a call raises, with its traceback."""
    try:
        raising(*given)  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize(
    "error",
    [
        TypeError("forward() takes 1 positional argument but 2 were given"),
        AttributeError("'Net' object has no attribute 'haed'"),
        NameError("name 'F' is not defined"),
        ModuleNotFoundError("No module named 'einops'"),
        SyntaxError("invalid syntax"),
        NotImplementedError('Module [Net] is missing the required "forward" function'),
        RecursionError("maximum recursion depth exceeded"),
        IndexError("Target 10 is out of bounds."),
        KeyError("labels"),
        JobError("a job that cannot be run"),
        StoreAwayError("the store was waited for, and a next try would wait once more"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_python_code_raises_comes_again(error: Exception) -> None:
    assert is_permanent(error, epochs_done=3)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
        OSError(5, "Input/output error"),
        EOFError("Ran out of input"),
        RuntimeError("Connection closed by peer [127.0.0.1]:6031 in gloo/transport/tcp/pair.cc"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("an error that nobody knows"),
    ],
    ids=str,
)
def test_what_the_machine_the_store_or_another_worker_did_may_not(error: Exception) -> None:
    assert not is_permanent(error, epochs_done=0)


def test_wrong_shapes_come_again() -> None:
    assert is_permanent(error_of(nn.Linear(8, 2), torch.zeros(4, 9)), epochs_done=1)


def test_full_gpu_memory_comes_again_where_no_epoch_was_finished() -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB"
    assert is_permanent(torch.OutOfMemoryError(text), epochs_done=0)
    assert not is_permanent(torch.OutOfMemoryError(text), epochs_done=5)


def test_a_runtime_error_counts_where_the_runs_own_code_raised_it(tmp_path: Path) -> None:
    folder = tmp_path / f"{CODE_PREFIX}x"
    folder.mkdir()
    (folder / "own.py").write_text("def fail():\n    raise RuntimeError('width must be even')\n")
    spec = importlib.util.spec_from_file_location("own", folder / "own.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert is_permanent(error_of(module.fail), epochs_done=1)
