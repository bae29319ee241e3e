"""Why a run's pods do not run yet, in words, from what the API server says of them."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cifarray.runs.status import parse_time
from cifarray.submit.kubernetes.api import Kube, RefusedError

Object = Mapping[str, Any]
IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
RESOURCE = re.compile(r"Insufficient ([\w./-]*\w)")


def explain(kube: Kube, labels: Mapping[str, str], owners: Iterable[str]) -> str:
    """One sentence on what the pods with these labels wait for; empty if for nothing known.

    `owners` are the names of the RayJob and RayCluster whose events may tell why there is no pod.
    """
    pods = kube.list("Pod", labels)
    for pod in pods:
        if reason := of_pod(pod):
            return reason
    try:
        events = kube.list("Event")
    except RefusedError:
        return ""
    return of_events(events, set(owners))


def of_pod(pod: Object) -> str:
    """What one pod waits for; empty for one that runs."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if reason := _stuck(pod):
        return reason
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(name, str(condition.get("message") or ""))
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in statuses:
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), str(waiting.get("message") or "")
        if reason in IMAGE_TROUBLE:
            return f"the image {container['image']} cannot be pulled: {message or reason}"
        if reason == "CreateContainerConfigError":
            return f"pod {name} cannot start: {message}"
        if reason == "CrashLoopBackOff":
            return f"container {container['name']} of pod {name} ends as soon as it starts"
    return ""


def of_events(events: Iterable[Object], owners: set[str]) -> str:
    """The newest reason why no pod was made: a quota, an admission."""
    told = sorted(
        (event for event in events if event["involvedObject"].get("name") in owners),
        key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""),
    )
    for event in reversed(told):
        message = str(event.get("message") or "")
        if "exceeded quota" in message:
            return f"the quota of the namespace is used up: {_from(message, 'exceeded quota')}"
        if "violates PodSecurity" in message:
            return f"Pod Security refuses the pods: {_from(message, 'violates PodSecurity')}"
        if event.get("type") == "Warning" and "forbidden" in message:
            return message
    return ""


def _stuck(pod: Object) -> str:
    """A pod that should have ended and has not: its node gives no sign of life."""
    until = parse_time(pod["metadata"].get("deletionTimestamp"))
    if until is None or until > datetime.now(UTC):
        return ""
    node = pod.get("spec", {}).get("nodeName")
    return (
        f"pod {pod['metadata']['name']} does not end because its node {node} does not answer, and"
        " KubeRay makes no other until it has; delete the node, or: kubectl taint nodes"
        f" {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )


def _unscheduled(pod: str, message: str) -> str:
    lacking = sorted(set(RESOURCE.findall(message)))
    if lacking:
        return f"no node has enough {' and '.join(lacking)} for pod {pod}: {message}"
    return f"no node takes pod {pod}: {message}"


def _from(text: str, start: str) -> str:
    return text[text.index(start) :]
