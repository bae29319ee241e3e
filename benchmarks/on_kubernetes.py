"""From `cifarray submit` to the first step on a Kubernetes cluster, and how that time is spent.

    python -m benchmarks.on_kubernetes [--cluster kubernetes-local] [--n 5]

Each run is a RayJob with a Ray cluster of its own, of the profile's size; the digits are prepared
before. Times that Kubernetes and the run's record hold are whole seconds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cifarray.backends.kubernetes.access import reached_store
from cifarray.backends.kubernetes.backend import open_cluster
from cifarray.backends.kubernetes.client import Kube
from cifarray.runs import Run
from cifarray.spec.load import load_profile
from cifarray.store import Store

STAGES = (
    "the CLI checks and records the run and creates the RayJob",
    "KubeRay creates the pods, Ray starts in them",
    "KubeRay submits, the driver imports torch and Ray",
    "Train's controller and workers start, the shards are read",
)


def cifarray(*arguments: str) -> str:
    """Run a command of the CLI and return what it prints."""
    command = [str(Path(sys.executable).with_name("cifarray")), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout


def moments(store: Store, kube: Kube, cluster: str) -> Iterator[float]:
    """Times of a run: submitted, RayJob created, pods ready, driver and training started."""
    yield time.time()
    words = ("--cluster", cluster, "--set", "train.epochs=2", "--set", "schedule.warmup_epochs=0")
    run = Run.open(
        store, json.loads(cifarray("submit", "train-digits", *words, "--json"))["run_id"]
    )
    status, first = run.status(), run.metrics()[0]
    rayjob = kube.get("RayJob", str((status.cluster or {})["job_id"]))
    assert rayjob is not None
    for text in (
        rayjob["metadata"]["creationTimestamp"],
        rayjob["status"]["rayJobInfo"]["startTime"],
        str(status.started_at),
        first["ended_at"],
    ):
        late = first["epoch_s"] if text == first["ended_at"] else 0.0
        yield datetime.fromisoformat(text).timestamp() - late


def main() -> None:
    """Submit n runs one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", default="kubernetes-local")
    parser.add_argument("--n", type=int, default=5)
    options = parser.parse_args()
    profile = load_profile(options.cluster)
    kube = open_cluster(profile).kube
    cifarray("data", "prepare", "digits", "--cluster", options.cluster)
    parts: list[list[float]] = [[] for _ in STAGES]
    with reached_store(profile, kube) as spec:
        store = Store.open(spec.uri, spec.endpoint)
        for _ in range(options.n):
            times = list(moments(store, kube, options.cluster))
            for part, (begin, end) in zip(parts, pairwise(times), strict=True):
                part.append(end - begin)
    print(f"n = {options.n}, {profile.workers} workers, profile {options.cluster}")
    print("| what | median, s | min | max |")
    print("|---|---|---|---|")
    whole = [sum(each) for each in zip(*parts, strict=True)]
    for what, values in zip(("submit to first step", *STAGES), (whole, *parts), strict=True):
        median = statistics.median(values)
        print(f"| {what} | {median:.1f} | {min(values):.1f} | {max(values):.1f} |")


if __name__ == "__main__":
    main()
