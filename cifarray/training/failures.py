"""Decides whether a worker's error ends the run or the work is retried.

Rows, seeds and weights of a step are the same in a retry, so an error that Python code raises there
is permanent; what the machine, the network or another worker did may not be.
"""

import socket
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from cifarray.errors import (
    CifarrayError,
    DatasetError,
    DivergedError,
    JobError,
    KeyMissingError,
    NoGpuError,
    RepeatingError,
    RunFailedError,
    StoreError,
)
from cifarray.runs import read_metrics
from cifarray.runs.failures.causes import CODE_PREFIX, find_cause, unwrapped
from cifarray.store import Store
from cifarray.store.layout import OUTCOME_FILE
from cifarray.training.distributed import world
from cifarray.training.worker import Work

TRANSIENT = (OSError, EOFError, MemoryError)
"""What the machine and its network raise."""
OUTSIDE_PACKAGES = frozenset({"aiohttp", "boto3", "botocore", "grpc", "pyarrow", "ray", "urllib3"})
"""Packages that raise what a cluster or a store did."""
PERMANENT = (DatasetError, JobError, RunFailedError, StoreError)
"""The store's own patience has already been used up; no second wait."""


def on_worker(part: Callable[[Work], object], work: Work) -> None:
    """Run a worker's part; an error that occurs on all ranks alike is left as a refusal.

    Ray would take it for the failure of a worker, and start new ones to meet it again. A permanent
    error that may be this rank's alone is raised as RepeatingError, so that Ray ends the others.
    """
    try:
        part(work)
    except (DivergedError, NoGpuError) as error:
        if world()[0] == 0:
            refusal = {"error": str(error)}
            work.open_store().write_json(work.place.key(OUTCOME_FILE), refusal)
    except Exception as error:
        if not fails_again(error, work):
            raise
        again = RepeatingError(str(find_cause(error)))
        again.rank, again.host = world()[0], socket.gethostname()
        raise again from error


def raise_refusal(work: Work) -> None:
    """Raise RunFailedError if the workers left a refusal in place of an outcome."""
    with suppress(KeyMissingError):
        outcome = work.open_store().read_json(work.place.key(OUTCOME_FILE))
        if "error" in outcome:
            raise RunFailedError(str(outcome["error"]))


def fails_again(error: Exception, work: Work) -> bool:
    """Whether the work's error is permanent; prints its traceback then, which Ray would drop."""
    done = epochs_done(work.open_store(), work.place.prefix)
    if not is_permanent(error, 1 if done is None else done):
        return False
    if not isinstance(error, CifarrayError):
        traceback.print_exception(error)
    return True


def is_permanent(error: BaseException, epochs_done: int) -> bool:
    """Whether an error certainly repeats when its step is tried again.

    A RuntimeError is what torch says of a wrong network and of a broken device alike: without a
    known text it counts only where the user's code raised it.
    """
    raised, cause = unwrapped(error), find_cause(error)
    if isinstance(raised, CifarrayError):
        return isinstance(raised, PERMANENT)
    if cause.repeats is not None:
        return cause.repeats == "always" or (cause.repeats == "at first" and epochs_done == 0)
    package = type(raised).__module__.partition(".")[0]
    if isinstance(raised, TRANSIENT) or package in OUTSIDE_PACKAGES:
        return False
    of_python = (NotImplementedError, RecursionError)
    if isinstance(raised, RuntimeError) and type(raised) not in of_python:
        return _in_user_code(raised)
    return True


def refuse_repeat(told: str, epochs_done: int, before: Mapping[str, Any] | None) -> None:
    """Raise RepeatingError if the failure before this one said the same after the same epoch.

    `told` is this failure's sentence, `before` the record of the last one.
    """
    if before is None or before.get("epochs") != epochs_done:
        return
    if _without_numbers(told) == _without_numbers(str(before.get("cause"))):
        raise RepeatingError(f"{told}; the same error occurred twice after epoch {epochs_done}")


def epochs_done(store: Store, folder: str) -> int | None:
    """How many epochs of an attempt or a trial are recorded; None if the store cannot say."""
    with suppress(StoreError):
        return len(read_metrics(store, folder))
    return None


def _in_user_code(error: BaseException) -> bool:
    """Whether the innermost frame that raised it lies in the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and CODE_PREFIX in trace.tb_frame.f_code.co_filename


def _without_numbers(text: str) -> str:
    return "".join(char for char in text if not char.isdecimal())
