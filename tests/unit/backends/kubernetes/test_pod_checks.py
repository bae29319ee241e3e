"""The checks of room, DNS, time to end and shared memory."""

import copy
from decimal import Decimal
from typing import Any

import pytest

from cifarray.backends.base import FAILED, PASSED, SKIPPED
from cifarray.backends.kubernetes import checks as pods
from cifarray.backends.kubernetes.backend import open_cluster
from cifarray.backends.kubernetes.checks import Site
from cifarray.backends.kubernetes.manifests import manifests
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.backends.kubernetes.kube_requests import profile

QUOTA = "/api/v1/namespaces/cifarray/resourcequotas/cifarray"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/cifarray/networkpolicies"
CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
GPU = "nvidia.com/gpu"
RUN = {"requests.cpu": "9", "requests.memory": "38Gi", "pods": "3"}
"""What a head of 1 CPU and 6 GiB and two workers of 4 CPUs and 16 GiB take."""


def ray_cluster() -> dict[str, Any]:
    (found,) = (each for each in manifests("gpu") if each["kind"] == "RayCluster")
    return copy.deepcopy(found)


@pytest.mark.parametrize(
    ("quantity", "number"),
    [("500m", "0.5"), ("4", "4"), ("4Gi", "4294967296"), ("1e3", "1000"), (3, "3")],
)
def test_quantities_are_read(quantity: object, number: str) -> None:
    assert pods.amount(quantity) == Decimal(number)


def test_what_a_run_needs_is_added_up(api: ApiServer) -> None:
    wanted = pods.needs(Site(open_cluster(profile(gpus_per_worker=1))).run_groups())
    assert {name: wanted[name] for name in RUN} == {n: pods.amount(v) for n, v in RUN.items()}
    assert wanted[f"requests.{GPU}"] == 2
    assert wanted["cpu"] == wanted["requests.cpu"]
    assert wanted["count/pods"] == 3


@pytest.mark.parametrize(
    ("hard", "used", "words"),
    [
        (RUN, {}, "the quota allows a run of 2 workers"),
        (RUN, {"pods": "1"}, "pods: 3 needed, 2 left of 3"),
        ({**RUN, "requests.cpu": "8500m"}, {}, "requests.cpu: 9 needed, 8.5 left of 8500m"),
        ({"requests.storage": "1Gi"}, {"requests.storage": "1Gi"}, "the quota allows"),
    ],
)
def test_a_quota_has_capacity_or_says_what_lacks(
    api: ApiServer, site: Site, hard: dict[str, str], used: dict[str, str], words: str
) -> None:
    api.put(QUOTA, spec={"hard": hard}, status={"hard": hard, "used": used})
    result = pods.quota(site)
    assert words in result.finding
    assert (result.outcome == PASSED) == ("the quota allows" in words)


def test_a_quota_that_is_used_up_and_one_that_is_too_small_have_other_remedies(
    api: ApiServer, site: Site
) -> None:
    api.put(QUOTA, spec={"hard": RUN}, status={"used": {"pods": "3"}})
    assert "wait until running jobs end" in pods.quota(site).remedy
    api.put(QUOTA, spec={"hard": {"pods": "2"}}, status={})
    assert pods.quota(site).remedy.startswith("raise the quota, or use")


def test_in_mode_ray_jobs_the_quota_has_to_hold_the_clusters_growth(api: ApiServer) -> None:
    site = Site(open_cluster(profile(mode="ray-jobs")))
    api.put(QUOTA, spec={"hard": {"pods": "12"}}, status={})
    assert "RayCluster cifarray does not exist" in pods.quota(site).finding
    live = ray_cluster()
    live["spec"]["workerGroupSpecs"][0]["replicas"] = 1
    api.put(CLUSTER, spec=live["spec"])
    assert pods.quota(Site(open_cluster(profile(mode="ray-jobs")))).outcome == PASSED
    api.put(QUOTA, spec={"hard": {"pods": "12"}}, status={"used": {"pods": "2"}})
    result = pods.quota(Site(open_cluster(profile(mode="ray-jobs"))))
    assert "pods: 11 needed, 10 left of 12" in result.finding


def test_no_quota_is_nothing_to_check(site: Site) -> None:
    assert pods.quota(site).outcome == SKIPPED


def put_nodes(api: ApiServer, *numbers: int, **spec: Any) -> None:
    for place, number in enumerate(numbers):
        api.put(
            f"/api/v1/nodes/node-{place}",
            metadata={"labels": {"zone": "a"}},
            spec=spec,
            status={"allocatable": {GPU: str(number)}},
        )


@pytest.mark.parametrize(
    ("each", "numbers", "outcome"),
    [
        (0, (), SKIPPED),
        (1, (2,), PASSED),
        (1, (1, 1, 0), PASSED),
        (1, (1,), FAILED),
        (2, (1, 1, 1, 1), FAILED),
        (2, (3, 2), PASSED),
    ],
)
def test_the_nodes_gpus_have_to_hold_a_run(
    api: ApiServer, each: int, numbers: tuple[int, ...], outcome: str
) -> None:
    put_nodes(api, *numbers)
    assert pods.gpu_capacity(Site(open_cluster(profile(gpus_per_worker=each)))).outcome == outcome


def test_nodes_that_are_closed_or_labeled_otherwise_do_not_count(api: ApiServer) -> None:
    put_nodes(api, 8)
    other = Site(open_cluster(profile(gpus_per_worker=1, node_selector={"zone": "b"})))
    assert "among those labeled zone=b" in pods.gpu_capacity(other).finding
    put_nodes(api, 8, unschedulable=True)
    assert pods.gpu_capacity(Site(open_cluster(profile(gpus_per_worker=1)))).outcome == FAILED


def put_policies(api: ApiServer, *names: str) -> None:
    for each in manifests("gpu"):
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] in names:
            api.put(f"{POLICIES}/{each['metadata']['name']}", spec=each["spec"])


@pytest.mark.parametrize(
    ("names", "outcome"),
    [((), PASSED), (("deny-all",), FAILED), (("deny-all", "dns"), PASSED), (("dns",), PASSED)],
)
def test_a_policy_that_denies_all_needs_one_that_lets_names_be_asked_for(
    api: ApiServer, site: Site, names: tuple[str, ...], outcome: str
) -> None:
    put_policies(api, *names)
    assert pods.dns(site).outcome == outcome


def test_a_policy_for_udp_alone_is_not_enough(api: ApiServer, site: Site) -> None:
    put_policies(api, "deny-all", "dns")
    api.objects[f"{POLICIES}/dns"]["spec"]["egress"][0]["ports"].pop()
    assert pods.dns(site).outcome == FAILED


def test_where_a_403_hides_the_list_the_shipped_policy_counts(api: ApiServer, site: Site) -> None:
    api.forbid(f"GET {POLICIES}")
    assert "NetworkPolicy dns does not exist" in pods.dns(site).finding
    put_policies(api, "dns")
    assert pods.dns(site).outcome == PASSED


@pytest.mark.parametrize(("grace", "outcome"), [(120, PASSED), (60, PASSED), (45, FAILED)])
def test_the_grace_has_to_be_longer_than_drain_and_upload(
    api: ApiServer, site: Site, grace: int, outcome: str
) -> None:
    live = ray_cluster()
    template = live["spec"]["workerGroupSpecs"][1]["template"]
    template["spec"]["terminationGracePeriodSeconds"] = grace
    api.put(CLUSTER, spec=live["spec"])
    result = pods.drain(site)
    assert result.outcome == outcome
    assert outcome == PASSED or "RayCluster cifarray's group gpu has 45 s" in result.finding


def test_a_pod_without_a_grace_of_its_own_has_kubernetes_30_s(api: ApiServer, site: Site) -> None:
    live = ray_cluster()
    del live["spec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    api.put(CLUSTER, spec=live["spec"])
    assert "head has 30 s" in pods.drain(site).finding


def test_the_shipped_pods_have_enough_shared_memory(api: ApiServer, site: Site) -> None:
    api.put(CLUSTER, spec=ray_cluster()["spec"])
    assert pods.shared_memory(site).outcome == PASSED


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            lambda head: head["rayStartParams"].pop("object-store-memory"),
            "2.4 GiB of object store in",
        ),
        (
            lambda head: head["rayStartParams"].update({"object-store-memory": str(3 << 30)}),
            "3.0 GiB of object store in 2.0 GiB",
        ),
        (lambda head: head["template"]["spec"]["volumes"].pop(), "mounts no /dev/shm"),
        (
            lambda head: head["template"]["spec"]["volumes"][-1]["emptyDir"].update(
                {"sizeLimit": "8Gi"}
            ),
            "8.0 GiB of /dev/shm in 8.0 GiB of memory",
        ),
    ],
)
def test_shared_memory_that_is_too_small_is_named(
    api: ApiServer, site: Site, break_it: Any, words: str
) -> None:
    live = ray_cluster()
    break_it(live["spec"]["headGroupSpec"])
    api.put(CLUSTER, spec=live["spec"])
    result = pods.shared_memory(site)
    assert result.outcome == FAILED and words in result.finding


def test_a_profile_whose_shared_memory_is_its_memory_is_named(api: ApiServer) -> None:
    result = pods.shared_memory(Site(open_cluster(profile(worker_shm="16Gi"))))
    assert "a run's workers: 16.0 GiB of /dev/shm in 16.0 GiB of memory" in result.finding
