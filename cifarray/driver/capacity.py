"""Whether the cluster has room for a run: refused at once on a node, waited for on Kubernetes."""

import time
from collections.abc import Callable

import ray
from ray.util import placement_group, remove_placement_group

from cifarray.errors import ClusterError
from cifarray.spec.run import RunSpec
from cifarray.training.ray_tune import concurrency, spec_of

READING_CPUS = 0.25
"""What Ray Data needs free beside the workers."""
LOOK_EVERY_S = 5.0


def ensure_room(spec: RunSpec, tell: Callable[[str], None]) -> None:
    """Return when the workers can be scheduled; `tell` hears what is waited for until then.

    Raises: ClusterError if they never can be, or not in time.
    """
    if spec.profile.kind == "kubernetes":
        _reserve(spec, tell)
    else:
        _refuse_without_room(spec)


def most_workers(spec: RunSpec) -> int:
    """How many workers the run has at once, over all trials."""
    if spec.job.sweep is None:
        return spec.world_size
    trials = concurrency(spec.job, spec.profile)
    return max(spec.world_size, trials * spec_of(spec.job).workers_per_trial)


def _refuse_without_room(spec: RunSpec) -> None:
    profile, has, workers = spec.profile, ray.cluster_resources(), most_workers(spec)
    needs = {
        "CPU": workers * profile.cpus_per_worker + READING_CPUS,
        "GPU": workers * profile.gpus_per_worker,
    }
    for resource, amount in needs.items():
        if amount > has.get(resource, 0.0) + 1e-9:
            raise ClusterError(
                f"{workers} workers and their reading need {amount:g} {resource}s, and the cluster "
                f"has {has.get(resource, 0.0):g}; take fewer workers or a smaller share for each "
                "in the cluster profile"
            )


def _reserve(spec: RunSpec, tell: Callable[[str], None]) -> None:
    """Ask for the workers' places, which an autoscaler hears, until they are there."""
    profile, workers = spec.profile, most_workers(spec)
    assert profile.kubernetes is not None
    each = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        each["GPU"] = profile.gpus_per_worker
    places = placement_group([each] * workers, strategy="SPREAD")

    def missing() -> str:
        has = ray.cluster_resources()
        wanted = ", ".join(f"{n:g} {name}s" for name, n in each.items())
        found = ", ".join(f"{has.get(name, 0.0):g} {name}s" for name in each)
        return f"room for {workers} workers of {wanted}; the cluster has {found}"

    try:
        wait_for_room(places.wait, missing, profile.kubernetes.cluster_wait_s, tell)
    finally:
        remove_placement_group(places)


def wait_for_room(
    come: Callable[[float], bool],
    missing: Callable[[], str],
    limit_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until `come(seconds)` is true, and tell what is missing whenever that has changed.

    Raises: ClusterError once that has taken longer than `limit_s`.
    """
    begun, told = clock(), ""
    while not come(LOOK_EVERY_S):
        text = missing()
        if clock() - begun > limit_s:
            raise ClusterError(
                f"within {limit_s:g} s there was no {text}; see `cifarray cluster status`, or "
                "raise kubernetes.max_wait_s or partial_wait_s in the profile"
            )
        if text != told:
            print(f"waiting for {text}", flush=True)
            tell(text)
            told = text
    tell("")
