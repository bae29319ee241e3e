"""`python -m cifarray.driver RUN --store URI`: what the Jobs API starts."""

import argparse
import sys

from cifarray.driver.execute import execute
from cifarray.errors import CifarrayError
from cifarray.runs import Run
from cifarray.store import Store


def main(arguments: list[str] | None = None) -> int:
    """Carry out one attempt; 0 if the run finished, 1 if not, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m cifarray.driver", description=__doc__)
    parser.add_argument("run", help="the run's id")
    parser.add_argument("--store", required=True, help="the store's URI")
    parser.add_argument("--endpoint", help="address of an S3-compatible server")
    options = parser.parse_args(arguments)
    try:
        return execute(Run.open(Store.open(options.store, options.endpoint), options.run))
    except CifarrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
