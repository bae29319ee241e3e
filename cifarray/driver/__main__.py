"""`python -m cifarray.driver RUN --store URI`: what the Jobs API starts.

KubeRay retries a RayJob whose Ray job has failed, and never one whose Ray job was stopped. On a
cluster that serves only one run, a driver that has recorded the end of its run stops its own job,
so that KubeRay starts no other cluster for it; a driver that was killed has recorded nothing, and
its run continues in the next cluster. See docs/decisions/0009-a-recorded-end-is-not-retried.md.
"""

import argparse
import os
import signal
import sys
import time

from cifarray import __version__
from cifarray.backends.environment import JOB_CONFIG
from cifarray.backends.ray_jobs.backend import standard_token
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.backends.submit import record_request
from cifarray.driver.attempt import STOPPED, execute
from cifarray.errors import CifarrayError, ClusterError, InputError, JobError, RunNotFoundError
from cifarray.proxies import spare_loopback
from cifarray.runs import ENDED, Run
from cifarray.spec.bounds import parse_json, parse_yaml
from cifarray.spec.run import OWN_JOBS_VARIABLE, REQUEST_VARIABLE, RunRequest
from cifarray.store import Access, Store
from cifarray.store.patience import RUN_S
from cifarray.user_folders import provide_home

ASK_PATIENCE_S = 10.0
STOP_WITHIN_S = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Execute one attempt; the exit code of `execute`, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m cifarray.driver", description="Execute one attempt of a run."
    )
    parser.add_argument("run", help="the run's id")
    parser.add_argument("--store", required=True, help="the store's URI")
    parser.add_argument("--endpoint", help="address of an S3-compatible server")
    parser.add_argument("--region", help="region of the store's bucket")
    options = parser.parse_args(arguments)
    provide_home()
    spare_loopback()
    try:
        # The profile's patience is not known yet.
        store = Store.open(options.store, options.endpoint, Access(options.region)).patient(RUN_S)
        code = _execute_run(store, options.run)
        if code not in (0, STOPPED):
            stop_own_job(Run(store, options.run))
        return code
    except CifarrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _execute_run(store: Store, run_id: str) -> int:
    try:
        if given := os.environ.get(REQUEST_VARIABLE):
            record_request(store, _read(given))
        return execute(Run.open(store, run_id))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        refuse(Run(store, run_id), error)
        return error.exit_code


def _read(given: str) -> RunRequest:
    """The request in the environment. Raises: JobError."""
    try:
        return RunRequest.model_validate(parse_yaml(given))
    except ValueError as error:  # pydantic's too
        reason = " ".join(str(error).split())[:300]
        raise JobError(
            f"cifarray {__version__} in this image cannot read the submitted run ({reason}); "
            "submit with the image's version of cifarray, or set kubernetes.image to an image "
            "of your version"
        ) from error


def refuse(run: Run, error: CifarrayError) -> None:
    """Record why no driver can execute a pending run. Raises: StoreError."""
    if _state(run) == "pending":
        run.mark_failed(str(error))


def stop_own_job(run: Run) -> None:
    """If the run is over and this driver's cluster is its own, stop this driver's job.

    Where that fails, the next cluster's driver finds the run over, and tries the same.
    Raises: StoreError.
    """
    dashboard, submission = os.environ.get(OWN_JOBS_VARIABLE), _own_submission()
    if not dashboard or not submission or _state(run) not in ENDED:
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(
            f"run {run.id} is over: stopping job {submission}, so that it is not retried",
            flush=True,
        )
        if RayJobs(dashboard, standard_token(), ASK_PATIENCE_S).stop(submission):
            time.sleep(STOP_WITHIN_S)
    except KeyboardInterrupt:
        return  # that is how the stop arrives
    except ClusterError as error:
        print(f"warning: job {submission} could not be stopped: {error}", flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)


def _state(run: Run) -> str:
    """The run's recorded state; empty for a run that is not recorded."""
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


if __name__ == "__main__":
    sys.exit(main())
