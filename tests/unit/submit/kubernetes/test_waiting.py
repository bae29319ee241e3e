"""Why pods wait, in words, from objects as the API server gives them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cifarray.submit.kubernetes.api import Kube
from cifarray.submit.kubernetes.waiting import RECENT_S, explain, of_events, of_pod
from tests.unit.submit.kubernetes.api_server import ApiServer

NAMESPACE = "/api/v1/namespaces/cifarray"
CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
LABELS = {"ray.io/cluster": "cifarray"}
QUOTA = 'pods "x" is forbidden: exceeded quota: cifarray, requested: requests.cpu=4'


def ago(seconds: float) -> str:
    """A moment as Kubernetes writes it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "run-head"}, "status": status}


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return pod({"phase": "Pending", "conditions": [{**condition, "message": message}]})


def container_waits(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    status = {"name": "ray-head", "image": "cifarray:0.1.0", "state": state}
    return pod({"phase": "Pending", "containerStatuses": [status]})


def event(message: str, name: str = "job-1", age_s: float = 5.0) -> dict[str, Any]:
    return {
        "involvedObject": {"name": name},
        "message": message,
        "type": "Warning",
        "lastTimestamp": ago(age_s),
    }


def on_node(ready: str, containers_ready: str = "True", **status: Any) -> dict[str, Any]:
    """A pod on a node with these conditions."""
    said = {"Ready": ready, "ContainersReady": containers_ready, "PodScheduled": "True"}
    conditions = [{"type": kind, "status": each} for kind, each in said.items()]
    return {
        "metadata": {"name": "run-head", "labels": LABELS},
        "spec": {"nodeName": "node-7"},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def test_a_pod_that_no_node_has_room_for_names_the_resource():
    said = of_pod(unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."))
    assert said.startswith("no node has enough nvidia.com/gpu for pod run-head: 0/2 nodes")


def test_a_pod_that_no_node_takes_for_another_reason_says_it():
    said = of_pod(unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."))
    assert said.startswith("no node takes pod run-head")
    assert "untolerated taint" in said


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str):
    assert "image cifarray:0.1.0 cannot be pulled" in of_pod(container_waits(reason, "not found"))


def test_a_secret_that_is_missing_is_named():
    said = of_pod(
        container_waits("CreateContainerConfigError", 'secret "cifarray-store" not found')
    )
    assert said == 'pod run-head cannot start: secret "cifarray-store" not found'


def test_a_running_pod_waits_for_nothing():
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    running = [{"name": "a", "image": "b", "state": {"running": {}}}]
    assert of_pod(pod({"conditions": scheduled, "containerStatuses": running})) == ""


def test_a_quota_that_is_used_up_is_found_in_the_events():
    message = 'pods "x" is forbidden: exceeded quota: cifarray, requested: requests.cpu=4'
    said = of_events([event(message)], {"job-1"})
    assert said == (
        "the quota of the namespace is used up: exceeded quota: cifarray, requested: requests.cpu=4"
    )


def test_events_of_other_objects_say_nothing_of_ours():
    assert of_events([event("exceeded quota: other", name="job-2")], {"job-1"}) == ""


def test_the_newest_event_counts():
    old = event("exceeded quota: cifarray", age_s=60)
    new = event('violates PodSecurity "restricted:latest"', age_s=5)
    assert of_events([new, old], {"job-1"}).startswith("Pod Security refuses the pods")


def test_a_quota_that_was_used_up_long_ago_may_have_been_raised_since():
    assert of_events([event(QUOTA, age_s=RECENT_S + 60)], {"job-1"}) == ""
    repeated = event(QUOTA) | {
        "lastTimestamp": None,
        "eventTime": ago(3600),
        "series": {"lastObservedTime": ago(5)},
    }
    assert "quota" in of_events([repeated], {"job-1"})


def test_what_kuberay_says_of_its_last_try_counts_before_pods_and_old_events(
    api: ApiServer, kube: Kube
):
    failed = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": f"FailedCreateWorkerPod\n{QUOTA}",
    }
    api.put(f"{NAMESPACE}/events/old", **event(QUOTA, name="cifarray", age_s=3000))
    api.put(CLUSTER, status={"conditions": [failed]})
    assert explain(kube, LABELS, ["cifarray"]).startswith("the quota of the namespace is used up")
    waits = unscheduled("0/2 nodes are available: 2 Insufficient cpu.")
    waits["metadata"]["labels"] = LABELS
    api.put(f"{NAMESPACE}/pods/run-head", **waits)
    assert explain(kube, LABELS, ["cifarray"]).startswith("the quota of the namespace is used up")
    api.put(CLUSTER, status={"conditions": []})
    assert explain(kube, LABELS, ["cifarray"]).startswith("no node has enough cpu")


@pytest.mark.parametrize(
    "silent",
    [on_node("False"), on_node("Unknown"), on_node("True", reason="NodeLost")],
)
def test_a_pod_whose_node_has_ceased_to_report_names_it_and_the_remedy(silent: dict[str, Any]):
    said = of_pod(silent)
    assert said.startswith("node node-7 of pod run-head does not answer")
    assert "kubectl taint nodes node-7 node.kubernetes.io/out-of-service" in said


def test_a_pod_that_should_have_ended_long_ago_is_on_a_node_that_does_not_answer():
    overdue = on_node("False", containers_ready="False")
    overdue["metadata"]["deletionTimestamp"] = ago(30)
    assert of_pod(overdue).startswith("node node-7 of pod run-head does not answer")
    overdue["metadata"]["deletionTimestamp"] = ago(-100)
    assert of_pod(overdue) == ""


def test_a_pod_whose_containers_are_not_ready_yet_is_on_a_node_like_any_other():
    assert of_pod(on_node("False", containers_ready="False")) == ""


def test_a_node_that_has_gone_is_told_before_what_other_pods_wait_for(api: ApiServer, kube: Kube):
    waits = unscheduled("0/1 nodes are available: 1 Insufficient cpu.")
    waits["metadata"] = {"name": "a-worker", "labels": LABELS}
    for each in (waits, on_node("False")):
        api.put(f"{NAMESPACE}/pods/{each['metadata']['name']}", **each)
    assert explain(kube, LABELS, ["cifarray"]).startswith("node node-7")
