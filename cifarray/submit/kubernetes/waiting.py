"""Why a run's pods do not run yet, in words, from what the API server says of them."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cifarray.runs.status import parse_time
from cifarray.submit.kubernetes.api import Kube, RefusedError

Object = Mapping[str, Any]
CLUSTER_LABEL = "ray.io/cluster"
RECENT_S = 300.0
"""An event that was last seen longer ago tells of something that may be over."""
IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
RESOURCE = re.compile(r"Insufficient ([\w./-]*\w)")


def explain(kube: Kube, labels: Mapping[str, str], owners: Iterable[str]) -> str:
    """One sentence on what the pods with these labels wait for; empty if for nothing known.

    `owners` are the names of the RayJob and RayCluster whose events may tell why there is no pod.
    """
    pods = kube.list("Pod", labels)
    # A node that has gone is the cause of what others wait for, and so is a pod that may not be.
    return (
        next(filter(None, map(_stuck, pods)), "")
        or _refused(_ray_cluster(kube, labels))
        or next(filter(None, map(of_pod, pods)), "")
        or _told(kube, set(owners))
    )


def _ray_cluster(kube: Kube, labels: Mapping[str, str]) -> Object:
    """The RayCluster whose label this is; empty where there is none, or the caller may not look."""
    try:
        name = labels.get(CLUSTER_LABEL)
        return (kube.get("RayCluster", name) if name else None) or {}
    except RefusedError:
        return {}


def _told(kube: Kube, owners: set[str]) -> str:
    """What the events of these objects tell; empty where the caller may not look."""
    try:
        return of_events(kube.list("Event"), owners)
    except RefusedError:
        return ""


def of_pod(pod: Object) -> str:
    """What one pod waits for; empty for one that runs."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if reason := _stuck(pod):
        return reason
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unscheduled(name, str(scheduled.get("message") or ""))
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
    """The newest reason of the last minutes why no pod was made: a quota, an admission."""
    now = datetime.now(UTC)
    told = sorted(
        (event for event in events if event["involvedObject"].get("name") in owners),
        key=_last_seen,
    )
    for event in reversed(told):
        seen = parse_time(_last_seen(event))
        if seen is None or (now - seen).total_seconds() > RECENT_S:
            continue
        message = str(event.get("message") or "")
        if reason := _refusal(message):
            return reason
        if event.get("type") == "Warning" and "forbidden" in message:
            return message
    return ""


def is_ready(pod: Object) -> bool:
    """Whether a pod serves, and nobody has asked for its end."""
    ready = _condition(pod, "Ready").get("status") == "True"
    return ready and not pod["metadata"].get("deletionTimestamp")


def ready_since(pod: Object) -> str:
    """When a pod became ready, or ceased to be; empty where nothing tells."""
    return str(_condition(pod, "Ready").get("lastTransitionTime") or "")


def _last_seen(event: Object) -> str:
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return str(next(filter(None, times), ""))


def _refused(cluster: Object) -> str:
    """Why KubeRay cannot make a RayCluster's pods at present; it tries again by itself."""
    for condition in (cluster.get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = " ".join(str(condition.get("message") or "").split())
            return _refusal(message) or message
    return ""


def _refusal(message: str) -> str:
    """A refusal of the API server in words; empty for a message that is none."""
    if "exceeded quota" in message:
        return f"the quota of the namespace is used up: {_from(message, 'exceeded quota')}"
    if "violates PodSecurity" in message:
        return f"Pod Security refuses the pods: {_from(message, 'violates PodSecurity')}"
    return ""


def _stuck(pod: Object) -> str:
    """A pod whose node gives no sign of life."""
    until = parse_time(pod["metadata"].get("deletionTimestamp"))
    overdue = until is not None and until < datetime.now(UTC)
    if not overdue and not _is_silent(pod):
        return ""
    node = pod.get("spec", {}).get("nodeName")
    return (
        f"node {node} of pod {pod['metadata']['name']} does not answer, and KubeRay makes no other"
        " pod until that one has ended; if the node stays away, delete it, or: kubectl taint nodes"
        f" {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )


def _is_silent(pod: Object) -> bool:
    """Whether the kubelet of a pod's node has ceased to report.

    The node controller then sets Ready to False and nothing else; a kubelet sets it together with
    ContainersReady. (Kubernetes' pkg/controller/util/node, MarkPodsNotReady; our pods have no
    readiness gates.)
    """
    if pod.get("status", {}).get("reason") == "NodeLost":
        return True
    ready, containers = _condition(pod, "Ready"), _condition(pod, "ContainersReady")
    if ready.get("reason") == "ReadinessGatesNotReady":
        return False
    said = ready.get("status")
    return said == "Unknown" or (said == "False" and containers.get("status") == "True")


def _condition(pod: Object, kind: str) -> Object:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def _unscheduled(pod: str, message: str) -> str:
    lacking = sorted(set(RESOURCE.findall(message)))
    if lacking:
        return f"no node has enough {' and '.join(lacking)} for pod {pod}: {message}"
    return f"no node takes pod {pod}: {message}"


def _from(text: str, start: str) -> str:
    return text[text.index(start) :]
