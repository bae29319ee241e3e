"""Checks whether the cluster has capacity for a run; on Kubernetes, waits for it."""

import time
from collections.abc import Callable

import ray
from ray.util import placement_group, remove_placement_group

from cifarray.errors import ClusterError
from cifarray.spec.run import RunSpec
from cifarray.training.trials import concurrency, sweep_of

READING_CPUS = 0.25
"""What Ray Data needs beside the workers."""
LOOK_EVERY_S = 5.0


def ensure_capacity(spec: RunSpec, tell: Callable[[str], None]) -> None:
    """Return when the workers can be scheduled; until then `tell` receives what is missing.

    Raises: ClusterError if they never can be, or not in time.
    """
    if spec.profile.has_pod_per_worker:
        _reserve(spec, tell)
    else:
        _require_capacity(spec)


def most_workers(spec: RunSpec) -> int:
    """How many workers the run has at once, over all trials."""
    if spec.job.sweep is None:
        return spec.world_size
    trials = concurrency(spec.job, spec.profile)
    return max(spec.world_size, trials * sweep_of(spec.job).workers_per_trial)


def _require_capacity(spec: RunSpec) -> None:
    profile, has, workers = spec.profile, ray.cluster_resources(), most_workers(spec)
    needs = {
        "CPU": workers * profile.cpus_per_worker + READING_CPUS,
        "GPU": workers * profile.gpus_per_worker,
    }
    for resource, amount in needs.items():
        if amount > has.get(resource, 0.0) + 1e-9:
            raise ClusterError(
                f"{workers} workers and their data reads need {amount:g} {resource}s, but the "
                f"cluster has {has.get(resource, 0.0):g}; use fewer workers or a smaller share "
                "for each in the cluster profile"
            )


def _reserve(spec: RunSpec, tell: Callable[[str], None]) -> None:
    """Reserve the workers' resources, which makes an autoscaler add nodes, and wait for them."""
    profile, workers = spec.profile, most_workers(spec)
    assert profile.kubernetes is not None
    each = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        each["GPU"] = profile.gpus_per_worker
    places = placement_group([each] * workers, strategy="SPREAD")

    def missing() -> str:
        has = ray.cluster_resources()
        needs = ", ".join(f"{n:g} {name}s" for name, n in each.items())
        found = ", ".join(f"{has.get(name, 0.0):g} {name}s" for name in each)
        return f"capacity for {workers} workers with {needs} each; the cluster has {found}"

    try:
        wait_for_capacity(places.wait, missing, profile.kubernetes.cluster_wait_s, tell)
    finally:
        remove_placement_group(places)


def wait_for_capacity(
    come: Callable[[float], bool],
    missing: Callable[[], str],
    limit_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until `come(seconds)` is true; `tell` receives what is missing whenever that changes.

    Raises: ClusterError once that has taken longer than `limit_s`.
    """
    started, told = clock(), ""
    while not come(LOOK_EVERY_S):
        text = missing()
        if clock() - started > limit_s:
            raise ClusterError(
                f"within {limit_s:g} s there was no {text}; see `cifarray cluster status`, or "
                "raise kubernetes.max_wait_s or partial_wait_s in the profile"
            )
        if text != told:
            print(f"waiting for {text}", flush=True)
            tell(text)
            told = text
    tell("")
