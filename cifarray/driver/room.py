"""Whether the cluster has room for a run: refused at once on a node, waited for on Kubernetes."""

import time

import ray
from ray.util import placement_group, remove_placement_group

from cifarray.errors import ClusterError
from cifarray.spec.run import RunSpec
from cifarray.tuning.sweep import concurrency, spec_of

READING_CPUS = 0.25
"""What Ray Data needs free beside the workers."""
SAY_EVERY_S = 30.0


def ensure_room(spec: RunSpec) -> None:
    """Return when the workers can be scheduled. Raises: ClusterError if they never can be."""
    if spec.profile.kind == "kubernetes":
        _wait_for_room(spec)
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


def _wait_for_room(spec: RunSpec) -> None:
    """Ask for the workers' places, which an autoscaler hears, until they are there."""
    profile, workers = spec.profile, most_workers(spec)
    assert profile.kubernetes is not None
    each = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        each["GPU"] = profile.gpus_per_worker
    begun, limit_s = time.monotonic(), profile.kubernetes.max_wait_s
    places = placement_group([each] * workers, strategy="SPREAD")
    try:
        while not places.wait(timeout_seconds=SAY_EVERY_S):
            has = ray.cluster_resources()
            found = ", ".join(f"{has.get(name, 0.0):g} {name}s" for name in each)
            waited_s = time.monotonic() - begun
            wanted = f"{workers} workers of {', '.join(f'{n:g} {r}s' for r, n in each.items())}"
            if waited_s > limit_s:
                raise ClusterError(
                    f"no room for {wanted} within {limit_s} s: the cluster has {found}; see "
                    "`cifarray cluster status`, or raise kubernetes.max_wait_s in the profile"
                )
            print(f"waiting for room for {wanted}: the cluster has {found}", flush=True)
    finally:
        remove_placement_group(places)
