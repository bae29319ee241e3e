"""One attempt of a run from its lease to its last status."""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import ray

from cifarray.data.shards import keep_shared_actors_here
from cifarray.driver.clock import in_time
from cifarray.driver.closing import close_with_report, publish
from cifarray.driver.continuing import carry_over
from cifarray.driver.log import kept_log
from cifarray.driver.post_mortem import keep_post_mortem
from cifarray.driver.progress import watched
from cifarray.driver.room import ensure_room
from cifarray.errors import CifarrayError, ClusterError, LeaseLostError
from cifarray.runs import ENDED, Attempt, Run
from cifarray.runs.causes import find_cause
from cifarray.spec.profile import Profile
from cifarray.store.layout import LOG_FILE
from cifarray.store.patience import PERSON_S
from cifarray.submit.processes import this_process
from cifarray.training.work import Work
from cifarray.training.worker import evaluate, train
from cifarray.tuning.sweep import sweep
from cifarray.tuning.trials import trial_job

ACTORS_TOO = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # or each line of a worker stands twice in the log
    "RAY_DATA_USAGE_DISABLED": "1",  # its actor would stay on a worker's node after the run
}
"""What every process of a run is told; RAY_ADDRESS too: by it Train's own actors look the node up,
and they find the wrong one where two run."""


STOPPED = 128 + signal.SIGTERM
"""Exit code of a driver that was told to stop, as a shell has it."""


def execute(run: Run) -> int:
    """Carry out one attempt; the exit code: 0 if the run finished, STOPPED if told to, else 1."""
    store = run.store.patient(run.spec().profile.store_patience_s)
    run = Run(store, run.id)
    state = run.status().state
    if state in ENDED:  # KubeRay submits a job again when it failed, or when its head went
        print(f"run {run.id}: {state} before; `cifarray resume` asks for it anew", flush=True)
        return 0 if state == "finished" else 1
    attempt = run.take_charge(f"{socket.gethostname()}:{os.getpid()}", this_process())
    with kept_log(run.store, attempt.place.key(LOG_FILE)) as log, _stoppable():
        print(f"run {run.id}, attempt {attempt.number}", flush=True)
        try:
            with attempt.keep_alive():
                carry_over(run, attempt)  # before any reader looks into its folder
                attempt.begin()
                with in_time(run.spec().profile), watched(attempt, run.spec()) as tell:
                    _carry_out(run, attempt, tell)
            attempt.close("finished")
            _publish(run, attempt)
            return 0
        except LeaseLostError as error:
            print(f"error: {error}", flush=True)
        except (KeyboardInterrupt, SystemExit):  # the latter while ray.init() runs
            store.shorten(PERSON_S)  # who asked for the end waits for it
            _close(attempt, "stopped", None)
            return STOPPED
        except CifarrayError as error:
            keep_post_mortem(run, attempt, error, log)
            _close(attempt, "failed", str(error))
        except Exception as error:
            traceback.print_exc()
            keep_post_mortem(run, attempt, error, log)
            _close(attempt, "failed", str(find_cause(error)))
        return 1


def _carry_out(run: Run, attempt: Attempt, tell: Callable[[str], None]) -> None:
    spec = run.spec()
    _connect(spec.profile)
    keep_shared_actors_here()
    ensure_room(spec, tell)
    work = Work(run.store.spec, spec, spec.job, attempt.place, spec.world_size)
    if spec.job.sweep is None:
        train(work)
        close_with_report(run, attempt, None)
    else:
        result = sweep(work)
        best = replace(work, job=trial_job(work.job, result.best.params))
        evaluate(best, result.checkpoint.key)
        close_with_report(run, attempt, result)


def _connect(profile: Profile) -> None:
    """Join the node that the Jobs API or `cifarray run` names, never one found by chance."""
    address = os.environ.get("RAY_ADDRESS") or profile.address
    if not address:
        raise ClusterError("no Ray node is named; set RAY_ADDRESS, or use `cifarray submit`")
    if not ray.is_initialized():
        ray.init(address=address, runtime_env={"env_vars": {"RAY_ADDRESS": address, **ACTORS_TOO}})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init() has put its own there


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that a stopped run closes as one.

    Of all exceptions in a handler, Ray lets this one alone end what waits for it.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _publish(run: Run, attempt: Attempt) -> None:
    """The run has finished whether this works or not: readers find the attempt's own files too."""
    try:
        publish(run, attempt)
    except CifarrayError as error:
        print(f"warning: the report stays in {attempt.prefix}: {error}", flush=True)


def _close(attempt: Attempt, state: str, error: str | None) -> None:
    if error:
        print(f"error: {error}", file=sys.stderr, flush=True)
    try:
        attempt.close("failed" if state == "failed" else "stopped", error)
    except LeaseLostError as lost:
        print(f"error: {lost}", flush=True)
    except CifarrayError as failed:
        print(f"error: the end of the run could not be recorded: {failed}", flush=True)
