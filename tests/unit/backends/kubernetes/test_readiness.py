"""What is waited for after applying, in words, and when the waiting ends."""

from typing import Any

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.manifests import manifests
from cifarray.backends.kubernetes.setup import Part, await_ready, head_of_another_image, look
from cifarray.errors import ClusterError
from tests.unit.backends.kubernetes.api_server import Answer, ApiServer

DEPLOYMENT = "/apis/apps/v1/namespaces/cifarray/deployments/cifarray-store"
CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
PODS = "/api/v1/namespaces/cifarray/pods"
JOBS = "/apis/batch/v1/namespaces/cifarray/jobs"
HEAD = {"ray.io/cluster": "cifarray", "ray.io/node-type": "head"}


def one(kind: str) -> dict[str, Any]:
    return next(each for each in manifests("local") if each["kind"] == kind)


def condition(kind: str, message: str = "", status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "message": message}


def put_deployment(api: ApiServer, **status: Any) -> None:
    spec = one("Deployment")["spec"]
    api.put(DEPLOYMENT, spec=spec, status={"observedGeneration": 1, **status})


def put_job(api: ApiServer, **status: Any) -> str:
    name = one("Job")["metadata"]["name"]
    api.put(f"{JOBS}/{name}", status=status)
    return str(name)


def put_all_ready(api: ApiServer) -> None:
    put_deployment(api, availableReplicas=1, updatedReplicas=1)
    for each in (each for each in manifests("local") if each["kind"] == "Job"):
        conditions = [condition("Complete")]
        api.put(f"{JOBS}/{each['metadata']['name']}", status={"conditions": conditions})
    api.put(CLUSTER, spec={}, status={"conditions": [condition("HeadPodReady")]})


def test_everything_ready_ends_the_wait_at_once(api: ApiServer, kube: Kube) -> None:
    put_all_ready(api)
    told: list[str] = []
    await_ready(kube, manifests("local"), told.append, patience_s=0.0)
    assert "Deployment cifarray-store: ready" in told
    assert "RayCluster cifarray: ready" in told
    assert len(told) == 4


def test_a_wait_that_ends_says_what_is_missing_and_that_nothing_is_undone(
    api: ApiServer, kube: Kube
) -> None:
    put_all_ready(api)
    api.put(CLUSTER, spec={}, status={"conditions": [condition("HeadPodReady", status="False")]})
    with pytest.raises(ClusterError, match="RayCluster cifarray: its head is starting") as caught:
        await_ready(kube, manifests("local"), lambda text: None, patience_s=0.0)
    assert "what was applied stays" in str(caught.value)
    assert "cifarray-store" not in str(caught.value)


def test_a_store_of_an_older_generation_is_not_ready(api: ApiServer, kube: Kube) -> None:
    put_deployment(api, availableReplicas=1, updatedReplicas=1, observedGeneration=0)
    assert look(kube, one("Deployment")) == Part("Deployment cifarray-store", "its pod is starting")


def test_a_store_without_a_pod_says_what_refused_it(api: ApiServer, kube: Kube) -> None:
    put_deployment(api, conditions=[condition("ReplicaFailure", "exceeded quota: cifarray")])
    assert look(kube, one("Deployment")).state == "exceeded quota: cifarray"


def test_a_pod_that_waits_is_explained(api: ApiServer, kube: Kube) -> None:
    put_deployment(api)
    message = "0/1 nodes are available: 1 Insufficient cpu."
    labels = one("Deployment")["spec"]["selector"]["matchLabels"]
    scheduled = condition("PodScheduled", message, status="False")
    api.put(f"{PODS}/store-1", metadata={"labels": labels}, status={"conditions": [scheduled]})
    assert "no node has enough cpu" in look(kube, one("Deployment")).state


def test_a_job_that_failed_ends_the_wait_with_its_pods_last_words(
    api: ApiServer, kube: Kube
) -> None:
    name = put_job(api, conditions=[condition("Failed", "it has reached its backoff limit")])
    api.put(
        f"{PODS}/{name}-x",
        metadata={"labels": {"batch.kubernetes.io/job-name": name}},
        spec={"containers": [{"name": "secrets"}]},
    )
    log = b"starting\nerror: the API server refuses (403)\n\n"
    api.script(f"GET {PODS}/{name}-x/log", Answer(200, log))
    with pytest.raises(
        ClusterError, match=r"backoff limit; last line of its log: error: the API server"
    ):
        await_ready(kube, [one("Job")], lambda text: None)


@pytest.mark.parametrize(
    ("status", "state", "ready"),
    [
        ({"conditions": [condition("Complete")]}, "done", True),
        ({"active": 1, "ready": 1}, "running", False),
        ({"active": 1, "ready": 0}, "its pod is starting", False),
    ],
)
def test_the_states_of_a_job(
    api: ApiServer, kube: Kube, status: dict[str, Any], state: str, ready: bool
) -> None:
    put_job(api, **status)
    part = look(kube, one("Job"))
    assert (part.state, part.ready) == (state, ready)


def test_a_job_that_its_time_to_live_ended_is_done(kube: Kube) -> None:
    assert look(kube, one("Job")).ready


@pytest.mark.parametrize("kind", ["Deployment", "RayCluster"])
def test_what_is_gone_ends_the_wait(kube: Kube, kind: str) -> None:
    with pytest.raises(ClusterError, match="it no longer exists"):
        await_ready(kube, [one(kind)], lambda text: None)


@pytest.mark.parametrize(
    ("live", "state"),
    [
        ({"spec": {}}, "waits for KubeRay's operator"),
        ({"spec": {"suspend": True}, "status": {"state": "suspended"}}, "it is suspended"),
        (
            {"spec": {}, "status": {"conditions": [condition("ReplicaFailure", "no room")]}},
            "no room",
        ),
    ],
)
def test_a_ray_cluster_says_what_it_waits_for(
    api: ApiServer, kube: Kube, live: dict[str, Any], state: str
) -> None:
    api.put(CLUSTER, **live)
    part = look(kube, one("RayCluster"))
    assert part.state == state and not part.ready


def test_a_head_of_an_older_image_is_named_with_the_way_out(api: ApiServer, kube: Kube) -> None:
    document = one("RayCluster")
    image = document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    api.put(f"{PODS}/head-1", metadata={"labels": HEAD}, spec={"containers": [{"image": image}]})
    assert head_of_another_image(kube, document) == ""
    api.put(f"{PODS}/head-1", metadata={"labels": HEAD}, spec={"containers": [{"image": "old:1"}]})
    sentence = head_of_another_image(kube, document)
    assert "still runs image old:1" in sentence
    assert "delete pod head-1" in sentence
