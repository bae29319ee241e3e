"""Why pods wait, in words, from objects as the API server gives them."""

from typing import Any

import pytest

from cifarray.submit.kubernetes.waiting import of_events, of_pod


def pod(status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "run-head"}, "status": status}


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return pod({"phase": "Pending", "conditions": [{**condition, "message": message}]})


def container_waits(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    status = {"name": "ray-head", "image": "cifarray:0.1.0", "state": state}
    return pod({"phase": "Pending", "containerStatuses": [status]})


def event(message: str, name: str = "job-1", at: str = "2026-11-23T04:00:00Z") -> dict[str, Any]:
    return {
        "involvedObject": {"name": name},
        "message": message,
        "type": "Warning",
        "lastTimestamp": at,
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
    old = event("exceeded quota: cifarray", at="2026-11-23T04:00:00Z")
    new = event('violates PodSecurity "restricted:latest"', at="2026-11-23T05:00:00Z")
    assert of_events([new, old], {"job-1"}).startswith("Pod Security refuses the pods")
