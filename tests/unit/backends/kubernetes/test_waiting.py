"""Why pods wait, in words, from objects as the API server gives them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.waiting import RECENT_S, Nodes, explain, of_events
from cifarray.backends.kubernetes.waiting import of_pod as of_pod_on
from tests.unit.backends.kubernetes.api_server import ApiServer

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
        "involvedObject": {"name": name, "uid": f"uid-of-{name}"},
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


def of_pod(kube: Kube, found: dict[str, Any]) -> str:
    """What is said of a pod that is looked at alone."""
    return of_pod_on(kube, found, Nodes(kube))


def of_job(*events: dict[str, Any]) -> str:
    """What the events tell of job-1."""
    return of_events(events, {"uid-of-job-1"}, datetime.now(UTC))


def put_node(api: ApiServer, ready: str) -> None:
    """Let node-7 have this status of its condition Ready."""
    conditions = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]
    api.put("/api/v1/nodes/node-7", status={"conditions": conditions})


def overdue(age_s: float = 30) -> dict[str, Any]:
    """A pod on node-7 that should have ended some seconds ago."""
    found = on_node("False", containers_ready="False")
    found["metadata"]["deletionTimestamp"] = ago(age_s)
    return found


MARKED = [on_node("False"), on_node("Unknown"), on_node("True", reason="NodeLost")]
"""As pods look whose node has ceased to report, and for a while after it is back."""


def test_a_pod_that_no_node_has_room_for_names_the_resource(kube: Kube):
    said = of_pod(kube, unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."))
    assert said.startswith("no node has enough nvidia.com/gpu for pod run-head: 0/2 nodes")


def test_a_pod_that_no_node_takes_for_another_reason_says_it(kube: Kube):
    why = "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."
    said = of_pod(kube, unscheduled(why))
    assert said.startswith("no node takes pod run-head")
    assert "untolerated taint" in said


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(kube: Kube, reason: str):
    said = of_pod(kube, container_waits(reason, "not found"))
    assert "image cifarray:0.1.0 cannot be pulled" in said


def test_a_secret_that_is_missing_is_named(kube: Kube):
    said = of_pod(
        kube, container_waits("CreateContainerConfigError", 'secret "cifarray-store" not found')
    )
    assert said == 'pod run-head cannot start: secret "cifarray-store" not found'


def test_a_running_pod_waits_for_nothing(kube: Kube):
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    running = [{"name": "a", "image": "b", "state": {"running": {}}}]
    assert of_pod(kube, pod({"conditions": scheduled, "containerStatuses": running})) == ""


def test_a_quota_that_is_used_up_is_found_in_the_events():
    message = 'pods "x" is forbidden: exceeded quota: cifarray, requested: requests.cpu=4'
    said = of_job(event(message))
    assert said == (
        "the quota of the namespace is used up: exceeded quota: cifarray, requested: requests.cpu=4"
    )


def test_events_of_other_objects_say_nothing_of_ours():
    assert of_job(event("exceeded quota: other", name="job-2")) == ""


def test_the_newest_event_counts():
    old = event("exceeded quota: cifarray", age_s=60)
    new = event('violates PodSecurity "restricted:latest"', age_s=5)
    assert of_job(new, old).startswith("Pod Security refuses the pods")


def test_a_quota_that_was_used_up_long_ago_may_have_been_raised_since():
    assert of_job(event(QUOTA, age_s=RECENT_S + 60)) == ""
    repeated = event(QUOTA) | {
        "lastTimestamp": None,
        "eventTime": ago(3600),
        "series": {"lastObservedTime": ago(5)},
    }
    assert "quota" in of_job(repeated)


def test_what_kuberay_says_of_its_last_try_counts_before_pods_and_old_events(
    api: ApiServer, kube: Kube
):
    failed = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": f"FailedCreateWorkerPod\n{QUOTA}",
    }
    api.put(f"{NAMESPACE}/events/old", **event(QUOTA, name="cifarray", age_s=3000))
    api.put(CLUSTER, metadata={"uid": "uid-of-cifarray"}, status={"conditions": [failed]})
    assert explain(kube, LABELS, []).startswith("the quota of the namespace is used up")
    waits = unscheduled("0/2 nodes are available: 2 Insufficient cpu.")
    waits["metadata"]["labels"] = LABELS
    api.put(f"{NAMESPACE}/pods/run-head", **waits)
    assert explain(kube, LABELS, []).startswith("the quota of the namespace is used up")
    api.put(CLUSTER, metadata={"uid": "uid-of-cifarray"}, status={"conditions": []})
    assert explain(kube, LABELS, []).startswith("no node has enough cpu")


@pytest.mark.parametrize("pod", [*MARKED, overdue()])
@pytest.mark.parametrize(
    ("ready", "does"), [("Unknown", "does not answer"), ("False", "is not Ready")]
)
def test_a_node_that_is_away_now_is_named_with_the_remedy(
    api: ApiServer, kube: Kube, pod: dict[str, Any], ready: str, does: str
):
    put_node(api, ready)
    said = of_pod(kube, pod)
    assert said.startswith(f"node node-7 of pod run-head {does}, and KubeRay creates no new pod")
    assert "kubectl taint nodes node-7 node.kubernetes.io/out-of-service" in said


@pytest.mark.parametrize("pod", [*MARKED, overdue()])
def test_a_node_that_nobody_knows_any_more_is_not_to_be_deleted(kube: Kube, pod: dict[str, Any]):
    assert of_pod(kube, pod) == (
        "node node-7 of pod run-head is gone, and Kubernetes has not removed the pod yet"
    )


@pytest.mark.parametrize("pod", MARKED)
def test_a_node_that_is_ready_is_not_blamed_for_what_its_pods_show_from_before(
    api: ApiServer, kube: Kube, pod: dict[str, Any]
):
    put_node(api, "True")
    assert of_pod(kube, pod) == ""


def test_a_pod_that_takes_long_to_end_on_a_ready_node_is_said_to_do_so(api: ApiServer, kube: Kube):
    put_node(api, "True")
    assert of_pod(kube, overdue()) == (
        "pod run-head is still terminating on node node-7, which is Ready"
    )
    assert of_pod(kube, overdue(-100)) == ""
    ended = overdue()
    ended["status"]["phase"] = "Failed"
    put_node(api, "Unknown")
    assert of_pod(kube, ended) == ""


@pytest.mark.parametrize("pod", [*MARKED, overdue()])
def test_who_may_not_look_at_nodes_is_told_whom_to_ask_and_no_more_than_was_seen(
    api: ApiServer, kube: Kube, pod: dict[str, Any]
):
    put_node(api, "True")
    api.forbid("GET /api/v1/nodes/node-7")
    said = of_pod(kube, pod)
    assert said.startswith("pod run-head on node node-7 has stopped reporting")
    assert "ask an administrator whether node node-7 is Ready; if it stays not Ready" in said
    assert "does not answer" not in said


@pytest.mark.parametrize("ahead_s", [300, -300, 86400])
def test_whether_a_pod_is_overdue_is_a_matter_of_the_servers_clock(
    api: ApiServer, kube: Kube, ahead_s: float
):
    api.clock_ahead_s = ahead_s
    put_node(api, "Unknown")
    kube.version()
    assert of_pod(kube, overdue(30 - ahead_s)).startswith("node node-7")
    assert of_pod(kube, overdue(-30 - ahead_s)) == ""


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_waits_for_no_node(api: ApiServer, kube: Kube, phase: str):
    put_node(api, "Unknown")
    assert of_pod(kube, on_node("Unknown", phase=phase)) == ""


def test_a_pod_whose_containers_are_not_ready_yet_is_on_a_node_like_any_other(kube: Kube):
    assert of_pod(kube, on_node("False", containers_ready="False")) == ""


def test_a_node_that_has_gone_is_told_before_what_other_pods_wait_for(api: ApiServer, kube: Kube):
    waits = unscheduled("0/1 nodes are available: 1 Insufficient cpu.")
    waits["metadata"] = {"name": "a-worker", "labels": LABELS}
    for each in (waits, on_node("False")):
        api.put(f"{NAMESPACE}/pods/{each['metadata']['name']}", **each)
    assert explain(kube, LABELS, []).startswith("node node-7")
    put_node(api, "True")
    assert explain(kube, LABELS, []).startswith("no node has enough cpu")


def test_events_of_an_older_object_of_the_same_name_say_nothing(api: ApiServer, kube: Kube):
    api.put(f"{NAMESPACE}/events/old", **event(QUOTA, name="cifarray"))
    api.put(CLUSTER, metadata={"uid": "a-newer-one"})
    assert explain(kube, LABELS, []) == ""
    api.put(CLUSTER, metadata={"uid": "uid-of-cifarray"})
    assert explain(kube, LABELS, []).startswith("the quota of the namespace is used up")
