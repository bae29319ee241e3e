"""What `cluster status` shows of a namespace; only what the caller may not see is hidden."""

from typing import Any

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.manifests import manifests
from cifarray.backends.kubernetes.overview import overview
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.backends.kubernetes.kube_requests import cluster_of

NAMESPACE = "/api/v1/namespaces/cifarray"
CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
RAYJOBS = "/apis/ray.io/v1/namespaces/cifarray/rayjobs"
GPU = "nvidia.com/gpu"


def put_pod(api: ApiServer, name: str, labels: dict[str, str], **content: Any) -> None:
    spec = {"containers": [{"name": "one"}], "nodeName": "node-0"}
    api.put(f"{NAMESPACE}/pods/{name}", metadata={"labels": labels}, **{"spec": spec, **content})


def seen_of(kube: Kube, **fields: Any) -> dict[str, Any]:
    cluster = cluster_of(kube, **fields)
    return overview(kube, cluster.spec, cluster.gang())


def test_the_pods_of_the_cluster_a_run_and_the_store_have_their_roles(
    api: ApiServer, kube: Kube
) -> None:
    head = {"ray.io/node-type": "head", "cifarray/run": "a-1", "cifarray/role": "ray"}
    ready = {"phase": "Running", "containerStatuses": [{"ready": True, "restartCount": 2}]}
    put_pod(api, "head", head, status=ready)
    put_pod(api, "bucket", {"cifarray/role": "bucket"}, status={"phase": "Pending"})
    put_pod(api, "store", {"app.kubernetes.io/name": "cifarray-store"}, status={})
    pods = {each["name"]: each for each in seen_of(kube)["pods"]}
    shown = {name: (pod["role"], pod["state"], pod["ready"]) for name, pod in pods.items()}
    assert shown == {
        "head": ("head", "running", 1),
        "bucket": ("bucket", "pending", 0),
        "store": ("cifarray-store", "pending", 0),
    }
    assert (pods["head"]["run"], pods["head"]["restarts"]) == ("a-1", 2)


def test_versions_groups_quota_and_runs_are_shown(api: ApiServer, kube: Kube) -> None:
    (document,) = (each for each in manifests("gpu") if each["kind"] == "RayCluster")
    conditions = [{"type": "HeadPodReady", "status": "True"}]
    api.put(CLUSTER, spec=document["spec"], status={"conditions": conditions})
    api.put(
        f"{NAMESPACE}/resourcequotas/cifarray",
        spec={"hard": {"pods": "26"}},
        status={"used": {"pods": "3"}},
    )
    api.put(
        f"{RAYJOBS}/a-1",
        metadata={"labels": {"cifarray/run": "a", "cifarray/job": "train-digits"}},
        status={"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"},
    )
    seen = seen_of(kube)
    assert seen["versions"]["kubernetes"] == "v1.34.0"
    assert seen["ray_cluster"]["ready"] and seen["ray_cluster"]["ray_version"] == "2.60.0"
    assert [group["name"] for group in seen["ray_cluster"]["groups"]] == ["cpu", "gpu"]
    quota = {"quota": "cifarray", "resource": "pods", "used": "3", "hard": "26"}
    assert seen["quota"] == [quota]
    assert seen["runs"][0]["run"] == "a" and seen["runs"][0]["status"] == "RUNNING"
    assert seen["hidden"] == {}


def test_gpus_are_those_of_the_nodes_and_those_that_pods_here_hold(
    api: ApiServer, kube: Kube
) -> None:
    for name, number in (("a", "4"), ("b", "2"), ("c", None)):
        allocatable = {GPU: number} if number else {}
        api.put(f"/api/v1/nodes/{name}", status={"allocatable": allocatable})
    asks = {"containers": [{"name": "one", "resources": {"requests": {GPU: "2"}}}]}
    put_pod(api, "runs", {}, spec=asks, status={"phase": "Running"})
    put_pod(api, "over", {}, spec=asks, status={"phase": "Succeeded"})
    assert seen_of(kube)["gpus"] == {"capacity": 6, "nodes": 2, "held": 2}


def test_a_scripted_403_hides_one_part_and_says_so(api: ApiServer, kube: Kube) -> None:
    for path in ("/api/v1/nodes", "/api/v1/pods"):
        api.forbid(f"GET {path}")
    seen = seen_of(kube)
    assert seen["gpus"] is None and seen["versions"]["kuberay"] is None
    assert set(seen["hidden"]) == {"gpus", "kuberay"}
    assert "forbidden" in seen["hidden"]["gpus"]
    assert seen["pods"] == []


def test_who_starts_pods_together_is_shown_and_a_profile_that_leaves_it_open_hides_nothing(
    api: ApiServer, kube: Kube
) -> None:
    assert seen_of(kube)["gang"] == "none"
    assert seen_of(kube, gang="kueue")["gang"] == "kueue"
    api.put(kube.path("LocalQueue", "team"))
    seen = seen_of(kube)
    assert (seen["gang"], seen["queue"]["name"]) == ("kueue", "team")
    assert seen_of(kube, mode="ray-jobs")["gang"] == "none"


def test_a_queue_is_counted_where_the_profile_names_one(api: ApiServer, kube: Kube) -> None:
    assert seen_of(kube)["queue"] is None

    absent = {"name": "team", "exists": False, "waiting": 0, "admitted": 0}
    assert seen_of(kube, queue="team")["queue"] == absent
    api.put(kube.path("LocalQueue", "team"), status={"pendingWorkloads": 3, "admittedWorkloads": 1})
    assert seen_of(kube, queue="team")["queue"] == {
        **absent,
        "exists": True,
        "waiting": 3,
        "admitted": 1,
    }
