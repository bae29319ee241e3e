"""Carry out the sweeps of recorded runs one after the other, in one driver: a start costs seconds.

`python -m tests.integration.sweep_here STORE RUN...`; no evaluation and no report follow.
"""

import os
import sys

import ray

from cifarray.backends.environment import run_environment
from cifarray.runs import Run
from cifarray.store import Store
from cifarray.training.ray_tune import sweep
from cifarray.training.worker import Work


def main(store: str, *runs: str) -> None:
    """Sweep each run in the folder of its first attempt."""
    found = [Run.open(Store.open(store), name) for name in runs]
    os.environ |= run_environment(found[0].spec().profile)
    ray.init()
    for run in found:
        spec = run.spec()
        result = sweep(Work(run.store.spec, spec, run.place.of_attempt(1)))
        print(f"{run.id}: best is {result.best.id}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
