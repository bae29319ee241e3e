"""How a driver leaves a Ray cluster of its own, so that KubeRay starts no other for what is over.

KubeRay retries a RayJob whose Ray job has failed, and never one whose Ray job was stopped. A driver
that has recorded the end of its run has itself stopped; one that was killed has recorded nothing,
and its run goes on in the next cluster. See docs/decisions/0009-a-recorded-end-is-not-retried.md.
"""

import os
import signal
import time

from cifarray.backends.environment import JOB_CONFIG
from cifarray.backends.ray_jobs.backend import standard_token
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import CifarrayError, ClusterError, RunNotFoundError
from cifarray.runs import ENDED, Run
from cifarray.spec.bounds import parse_json
from cifarray.spec.run import OWN_JOBS_VARIABLE

ASK_PATIENCE_S = 10.0
STOP_WITHIN_S = 30.0


def refuse(run: Run, error: CifarrayError) -> None:
    """Record what keeps every driver from carrying out a run that waits. Raises: StoreError."""
    if _state(run) == "pending":
        run.mark_failed(str(error))


def leave(run: Run) -> None:
    """Return at once, unless the run is over and this driver's cluster is its own: be stopped then.

    Where that does not work, the next cluster's driver finds the run over, and tries the same.
    Raises: StoreError.
    """
    dashboard, submission = os.environ.get(OWN_JOBS_VARIABLE), _own_submission()
    if not dashboard or not submission or _state(run) not in ENDED:
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(f"run {run.id} is over: stopping job {submission}, which is not retried", flush=True)
        if RayJobs(dashboard, standard_token(), ASK_PATIENCE_S).stop(submission):
            time.sleep(STOP_WITHIN_S)
    except KeyboardInterrupt:
        return  # that is how the stop arrives
    except ClusterError as error:
        print(f"warning: job {submission} could not be stopped: {error}", flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)


def _state(run: Run) -> str:
    """The run's recorded state; empty for a run that nobody recorded."""
    try:
        return run.status().state
    except RunNotFoundError:
        return ""


def _own_submission() -> str | None:
    """The id under which the Jobs API started this process."""
    try:
        found = parse_json(os.environ[JOB_CONFIG])["metadata"]["job_submission_id"]
    except (KeyError, TypeError, ValueError):
        return None
    return str(found)
