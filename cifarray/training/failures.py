"""Which errors of a worker come again each time, so that nobody tries again.

Rows, seeds and weights of a step are the same in the next try, so what Python code raises there
comes again; what the machine, the network or another worker did may not.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cifarray.errors import (
    CifarrayError,
    DatasetError,
    JobError,
    RepeatingError,
    RunFailedError,
    StoreError,
)
from cifarray.runs import read_metrics
from cifarray.runs.causes import CODE_PREFIX, find_cause, unwrapped
from cifarray.store import Store

OUTSIDE = (OSError, EOFError, MemoryError)
"""What the machine and its network raise."""
OUTSIDE_PACKAGES = frozenset({"aiohttp", "boto3", "botocore", "grpc", "pyarrow", "ray", "urllib3"})
"""Packages that raise what a cluster or a store did."""
OURS_AGAIN = (DatasetError, JobError, RunFailedError, StoreError)
"""A store that was away has been waited for where it was called; nobody waits once more."""


def comes_again(error: BaseException, epochs_done: int) -> bool:
    """Whether an error certainly comes again when its step is tried again.

    A RuntimeError is what torch says of a wrong network and of a broken device alike: without a
    known text it counts only where the run's own code raised it.
    """
    raised, cause = unwrapped(error), find_cause(error)
    if isinstance(raised, CifarrayError):
        return isinstance(raised, OURS_AGAIN)
    if cause.repeats is not None:
        return cause.repeats == "always" or (cause.repeats == "at first" and epochs_done == 0)
    if isinstance(raised, OUTSIDE) or type(raised).__module__.partition(".")[0] in OUTSIDE_PACKAGES:
        return False
    if isinstance(raised, RuntimeError) and type(raised) not in (
        NotImplementedError,
        RecursionError,
    ):
        return _in_own_code(raised)
    return True


def refuse_again(told: str, epochs_done: int, before: Mapping[str, Any] | None) -> None:
    """Raise RepeatingError if the failure before this one said the same after the same epoch.

    `told` is this failure's sentence, `before` the record of the last one.
    """
    if before is None or before.get("epochs") != epochs_done:
        return
    if _without_numbers(told) == _without_numbers(str(before.get("cause"))):
        raise RepeatingError(f"{told}; it came twice after epoch {epochs_done}")


def epochs_done(store: Store, folder: str) -> int | None:
    """How many epochs of an attempt or a trial are recorded; None where the store cannot say."""
    with suppress(StoreError):
        return len(read_metrics(store, folder))
    return None


def _in_own_code(error: BaseException) -> bool:
    """Whether the innermost frame that raised it lies in the run's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and CODE_PREFIX in trace.tb_frame.f_code.co_filename


def _without_numbers(text: str) -> str:
    return "".join(char for char in text if not char.isdecimal())
