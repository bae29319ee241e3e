"""`python -m cifarray.driver RUN --store URI`: what the Jobs API starts."""

import argparse
import os
import sys

from cifarray import __version__
from cifarray.backends.submit import record_request
from cifarray.driver.execute import STOPPED, execute
from cifarray.driver.leaving import leave, refuse
from cifarray.errors import CifarrayError, InputError, JobError
from cifarray.proxies import spare_loopback
from cifarray.runs import Run
from cifarray.spec.bounded_yaml import parse_yaml
from cifarray.spec.run import REQUEST_VARIABLE, RunRequest
from cifarray.store import Store
from cifarray.store.patience import RUN_S
from cifarray.user_folders import provide_home


def main(arguments: list[str] | None = None) -> int:
    """Carry out one attempt; `execute`'s exit code, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m cifarray.driver", description=__doc__)
    parser.add_argument("run", help="the run's id")
    parser.add_argument("--store", required=True, help="the store's URI")
    parser.add_argument("--endpoint", help="address of an S3-compatible server")
    options = parser.parse_args(arguments)
    provide_home()
    spare_loopback()
    try:
        # Nothing is known yet of the run's own patience.
        store = Store.open(options.store, options.endpoint).patient(RUN_S)
        code = _carry_out(store, options.run)
        if code not in (0, STOPPED):
            leave(Run(store, options.run))
        return code
    except CifarrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _carry_out(store: Store, run_id: str) -> int:
    try:
        if given := os.environ.get(REQUEST_VARIABLE):
            record_request(store, _read(given))
        return execute(Run.open(store, run_id))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        refuse(Run(store, run_id), error)
        return error.exit_code


def _read(given: str) -> RunRequest:
    """The request that the environment holds. Raises: JobError."""
    try:
        return RunRequest.model_validate(parse_yaml(given))
    except ValueError as error:  # pydantic's too
        reason = " ".join(str(error).split())[:300]
        raise JobError(
            f"cifarray {__version__} in this image does not read what was submitted ({reason}); "
            "submit with the image's version, or give kubernetes.image one of yours"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
