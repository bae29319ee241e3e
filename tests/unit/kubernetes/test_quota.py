"""The quota's figures hold what has to fit, and little more; added up pod by pod."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

from cifarray.backends.kubernetes.pods import of_kubernetes
from cifarray.backends.kubernetes.rayjob import rayjob
from cifarray.spec import quantity as quantities
from cifarray.spec.load import load_profile
from tests.unit.kubernetes.ray_pods import Manifest, Pod, pods_of
from tests.unit.kubernetes.shipped import (
    OVERLAYS,
    PROFILES,
    component,
    kubernetes_profiles,
    overlay,
    request,
    table,
)

Amounts = defaultdict[str, float]

GPU = "nvidia.com/gpu"
NODE = {"requests.cpu": 2.0, "requests.memory": 16.0 * 2**30}
"""What overlays/local is for."""
OF_THE_SYSTEM = {"requests.cpu": 0.1, "requests.memory": 70.0 * 2**20}
"""What DNS takes of it, at the least."""


def amount(quantity: Any) -> float:
    """A quantity as Kubernetes reads it: 200m -> 0.2, 1Gi -> 1073741824."""
    return float(quantities.amount(quantity))


def of_pod(pod: Pod) -> Amounts:
    """What a pod counts for: its containers together, or the one that comes first if it is more."""
    total: Amounts = defaultdict(float, pods=1)
    for bound in ("requests", "limits"):
        for resource in ("cpu", "memory", GPU):
            main = sum(_asked(c, bound, resource) for c in pod.spec["containers"])
            first = [_asked(c, bound, resource) for c in pod.spec.get("initContainers", ())]
            total[f"{bound}.{resource}"] = max(main, *first, 0.0)
    return total


def _asked(container: dict[str, Any], bound: str, resource: str) -> float:
    return amount(container["resources"].get(bound, {}).get(resource, 0))


def of_pods(pods: Iterable[Pod], times: int = 1) -> Amounts:
    """What pods count for at their most."""
    total: Amounts = defaultdict(float)
    for pod in pods:
        for name, value in of_pod(pod).items():
            total[name] += value * pod.most * times
    return total


def of_claims(manifests: Iterable[Manifest]) -> Amounts:
    """What volumes count for."""
    total: Amounts = defaultdict(float)
    for claim in (each for each in manifests if each["kind"] == "PersistentVolumeClaim"):
        total["persistentvolumeclaims"] += 1
        total["requests.storage"] += amount(claim["spec"]["resources"]["requests"]["storage"])
    return total


def one_run(name: str) -> list[Pod]:
    """The pods of a run of the profile that goes with an overlay."""
    return pods_of([rayjob(request(PROFILES[name]), 1)])


def needed(name: str) -> Amounts:
    """All that the quota of an overlay has to hold; a run twice, since its old pods may end."""
    manifests = [*overlay(name), *component("monitoring")]
    parts = (of_pods(pods_of(manifests)), of_pods(one_run(name), 2), of_claims(manifests))
    total: Amounts = defaultdict(float)
    for key, value in (item for part in parts for item in part.items()):
        total[key] += value
    return total


def quota(name: str) -> dict[str, float]:
    """The quota's figures."""
    (found,) = (each for each in overlay(name) if each["kind"] == "ResourceQuota")
    return {key: amount(value) for key, value in found["spec"]["hard"].items()}


@pytest.mark.parametrize(
    ("quantity", "value"), [("200m", 0.2), ("2", 2), ("512Mi", 2**29), ("1G", 10**9), (3, 3)]
)
def test_quantities_are_read_as_kubernetes_reads_them(quantity: Any, value: float):
    assert amount(quantity) == pytest.approx(value)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_quota_holds_the_raycluster_at_its_most_and_a_run_whose_old_pods_still_end(name: str):
    wanted, hard = needed(name), quota(name)
    assert {key for key in wanted if wanted[key] and key != f"limits.{GPU}"} <= set(hard)
    assert {key: wanted[key] for key in hard if wanted[key] > hard[key]} == {}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_quota_is_no_larger_than_it_has_to_be(name: str):
    wanted = needed(name)
    loose = {key: value for key, value in quota(name).items() if value > 1.25 * wanted[key]}
    assert loose == {}


def test_the_local_raycluster_at_its_most_fits_a_node_of_two_cpus():
    total = of_pods(pods_of([*overlay("local"), *component("monitoring")]))
    assert all(total[key] + OF_THE_SYSTEM[key] <= most for key, most in NODE.items()), total


def test_a_local_run_fits_the_node_beside_the_idle_raycluster():
    idle = [
        pod
        for pod in pods_of([*overlay("local"), *component("monitoring")])
        if pod.labels.get("ray.io/node-type") != "worker" and not pod.where.startswith("Job ")
    ]
    total = of_pods([*idle, *one_run("local")])
    assert all(total[key] + OF_THE_SYSTEM[key] <= most for key, most in NODE.items()), total


def test_only_the_local_raycluster_can_have_no_gpu():
    groups = {name: {p.labels["ray.io/group"]: p.most for p in rays(name)} for name in OVERLAYS}
    assert groups["local"] == {"headgroup": 1, "cpu": 2, "gpu": 0}
    assert groups["gpu"] == groups["external-s3"] == {"headgroup": 1, "cpu": 4, "gpu": 8}


def rays(name: str) -> list[Pod]:
    """The pods of an overlay's RayCluster."""
    return [pod for pod in pods_of(overlay(name)) if pod.of_ray]


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_container_asks_for_less_than_the_limit_range_lets_in(name: str):
    (limits,) = (each for each in overlay(name) if each["kind"] == "LimitRange")
    least = limits["spec"]["limits"][0]["min"]
    pods = [*pods_of([*overlay(name), *component("monitoring")]), *one_run(name)]
    assert any(c["name"] == "wait-gcs-ready" for pod in pods for c in pod.containers)
    below = [
        f"{pod.where}: {container['name']}"
        for pod in pods
        for container in pod.containers
        for resource, value in least.items()
        if _asked(container, "requests", resource) < amount(value)
    ]
    assert below == []


def test_the_queue_holds_a_run_and_no_more_than_the_quota_leaves():
    (queue,) = (each for each in component("kueue") if each["kind"] == "ClusterQueue")
    (flavor,) = queue["spec"]["resourceGroups"][0]["flavors"]
    nominal = {each["name"]: amount(each["nominalQuota"]) for each in flavor["resources"]}
    run, rest = of_pods(one_run("gpu")), of_pods(pods_of(overlay("gpu")))
    for resource, value in nominal.items():
        key = f"requests.{resource}"
        assert run[key] <= value <= quota("gpu")[key] - rest[key]


def test_a_profile_s_pods_are_of_the_image_that_the_manifests_are_of():
    images = {of_kubernetes(load_profile(name)).image for name in kubernetes_profiles()}
    assert images == {f"cifarray:{table()['cifarray'].partition('@')[0]}"}
