"""An attempt in a process of its own, which writes and beats until it has lost its run.

`python -m tests.unit.runs.one_attempt STORE ENDPOINT RUN`.
"""

import sys
import time

from cifarray.errors import LeaseLostError
from cifarray.runs import Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.store import Store


def main(store: str, endpoint: str, run_id: str) -> int:
    """Write an epoch after the other; 1 once another attempt is in charge."""
    attempt = Run.open(Store.open(store, endpoint), run_id).start_attempt("the first")
    epochs: list[dict[str, int]] = []
    try:
        while True:
            epochs.append({"epoch": len(epochs) + 1})
            write_metrics(attempt.run.store, attempt.prefix, epochs)
            attempt.heartbeat({"done": len(epochs)})
            time.sleep(0.05)
    except LeaseLostError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
