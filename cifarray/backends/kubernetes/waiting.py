"""Why a run's pods do not run yet, in words, from what the API server says about them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from cifarray.backends.kubernetes.client import Kube, RefusedError, condition, holds
from cifarray.runs.status import parse_time

NodeState: TypeAlias = Literal["ready", "not ready", "silent", "gone", "hidden"]
"""hidden: the caller has no right to read nodes, as most users."""
NODE_STATES: dict[str, NodeState] = {"True": "ready", "False": "not ready"}
"""By the status of a node's condition Ready."""
OPERATOR_LABELS = {"app.kubernetes.io/component": "kuberay-operator"}
"""Of its pods, in its Helm chart and in its kustomization alike."""
LEAST_OPERATOR = (1, 7)
IMAGE_VERSION = re.compile(r":v?(\d+)\.(\d+)(\.\d+)?")
Object = Mapping[str, Any]
CLUSTER_LABEL = "ray.io/cluster"
RECENT_S = 300.0
"""Older events may describe something that is over."""
IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
ENDED_PHASES = ("Succeeded", "Failed")
RESOURCE = re.compile(r"Insufficient ([\w./-]*\w)")


class Nodes:
    """The nodes of a cluster; each is looked at once."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._seen: dict[str, NodeState] = {}

    def state(self, name: str) -> NodeState:
        """The current state of a node. Raises: ClusterError."""
        if name not in self._seen:
            self._seen[name] = self._look(name)
        return self._seen[name]

    def _look(self, name: str) -> NodeState:
        try:
            found = self._kube.get("Node", name)
        except RefusedError as error:
            if error.code != 403:
                raise
            return "hidden"
        return "gone" if found is None else _state_of(found)


def _state_of(node: dict[str, Any]) -> NodeState:
    """By its Ready condition, which becomes Unknown when the kubelet stops reporting."""
    return NODE_STATES.get(str(condition(node, "Ready").get("status")), "silent")


@dataclass(frozen=True)
class Operator:
    """One pod of the operator."""

    namespace: str
    pod: str
    image: str
    ready: bool

    @property
    def version(self) -> str | None:
        """From the image's tag; None if the image is named by a digest alone."""
        found = IMAGE_VERSION.search(self.image)
        return found[0].lstrip(":v") if found else None

    @property
    def too_old(self) -> bool:
        """Whether it is certainly older than what run deadlines and resubmission need."""
        found = IMAGE_VERSION.search(self.image)
        return found is not None and (int(found[1]), int(found[2])) < LEAST_OPERATOR


def find_operators(kube: Kube) -> list[Operator]:
    """Its pods in all namespaces, ready ones first.

    Raises: RefusedError (403) for callers who may not list pods everywhere.
    """
    found = []
    for pod in kube.list("Pod", OPERATOR_LABELS, everywhere=True):
        ready = holds(pod, "Ready")
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        found.append(Operator(metadata["namespace"], metadata["name"], container["image"], ready))
    return sorted(found, key=lambda each: not each.ready)


def explain(kube: Kube, labels: Mapping[str, str], owners: Iterable[Object]) -> str:
    """One sentence on what the pods with these labels wait for; empty if unknown.

    `owners` are the RayJob, or what else creates the pods: their events may say why there is none.
    """
    pods, nodes = kube.list("Pod", labels), Nodes(kube)
    cluster = _ray_cluster(kube, labels)
    # A node that is gone, or a pod that may not be created, is why other pods wait.
    return (
        next(filter(None, (_stuck(kube, pod, nodes) for pod in pods)), "")
        or _refused(cluster)
        or next(filter(None, (of_pod(kube, pod, nodes) for pod in pods)), "")
        or told(kube, [*owners, cluster])
    )


def _ray_cluster(kube: Kube, labels: Mapping[str, str]) -> Object:
    """The RayCluster whose label this is; empty if there is none, or the caller may not look."""
    try:
        name = labels.get(CLUSTER_LABEL)
        return (kube.get("RayCluster", name) if name else None) or {}
    except RefusedError:
        return {}


def told(kube: Kube, owners: Iterable[Object]) -> str:
    """What the events of these objects say; empty if the caller may not read them."""
    uids = {str(each["metadata"].get("uid")) for each in owners if each}
    try:
        return of_events(kube.list("Event"), uids, kube.now())
    except RefusedError:
        return ""


def of_pod(kube: Kube, pod: Object, nodes: Nodes) -> str:
    """What one pod waits for; empty for one that runs."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if reason := _stuck(kube, pod, nodes):
        return reason
    node = _node_of(pod)
    if node and _is_overdue(kube, pod) and nodes.state(node) == "ready":
        return f"pod {name} is still terminating on node {node}, which is Ready"
    scheduled = condition(pod, "PodScheduled")
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
            return f"container {container['name']} of pod {name} crashes right after its start"
    return ""


def of_events(events: Iterable[Object], uids: set[str], now: datetime) -> str:
    """The newest reason of the last minutes why no pod was made: a quota, an admission.

    An object's uid tells its events from those of an older one that had its name.
    """
    ours = sorted(
        (event for event in events if event["involvedObject"].get("uid") in uids),
        key=_last_seen,
    )
    for event in reversed(ours):
        seen = parse_time(_last_seen(event))
        if seen is None or (now - seen).total_seconds() > RECENT_S:
            continue
        message = str(event.get("message") or "")
        if reason := _refusal(message):
            return reason
        if event.get("type") == "Warning" and "forbidden" in message:
            return message
    return ""


def ready_since(pod: Object) -> str:
    """When a pod last became ready or not ready; empty if unknown."""
    return str(condition(pod, "Ready").get("lastTransitionTime") or "")


def _last_seen(event: Object) -> str:
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return str(next(filter(None, times), ""))


def _refused(cluster: Object) -> str:
    """Why KubeRay currently cannot create a RayCluster's pods; it retries automatically."""
    if not holds(cluster, "ReplicaFailure"):
        return ""
    message = " ".join(str(condition(cluster, "ReplicaFailure").get("message") or "").split())
    return _refusal(message) or message


def _refusal(message: str) -> str:
    """A refusal of the API server in words; empty if the message is not a refusal."""
    if "exceeded quota" in message:
        return f"the quota of the namespace is used up: {_from(message, 'exceeded quota')}"
    if "violates PodSecurity" in message:
        return f"Pod Security refuses the pods: {_from(message, 'violates PodSecurity')}"
    return ""


def _stuck(kube: Kube, pod: Object, nodes: Nodes) -> str:
    """Says that a pod's node does not answer at this moment."""
    node, ended = _node_of(pod), pod.get("status", {}).get("phase") in ENDED_PHASES
    if not node or ended or not (_is_overdue(kube, pod) or _is_marked(pod)):
        return ""
    state, name = nodes.state(node), pod["metadata"]["name"]
    if state == "ready":
        return ""  # the pod still shows its state from before
    if state == "gone":
        return f"node {node} of pod {name} is gone, and Kubernetes has not removed the pod yet"
    remedy = (
        f"delete it, or: kubectl taint nodes {node} "
        "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )
    holds = "KubeRay creates no new pod until that one has ended"
    if state == "hidden":
        return (
            f"pod {name} on node {node} has stopped reporting, and {holds}; ask an administrator "
            f"whether node {node} is Ready; if it stays not Ready, ask them to {remedy}"
        )
    does = "is not Ready" if state == "not ready" else "does not answer"
    return (
        f"node {node} of pod {name} {does}, and {holds}; if the node does not come back, {remedy}"
    )


def _node_of(pod: Object) -> str:
    return str(pod.get("spec", {}).get("nodeName") or "")


def _is_overdue(kube: Kube, pod: Object) -> bool:
    """Whether a pod should have terminated by now."""
    until = parse_time(pod["metadata"].get("deletionTimestamp"))
    return until is not None and until < kube.now()


def _is_marked(pod: Object) -> bool:
    """Whether a pod was marked since its node's kubelet had ceased to report.

    The mark stays for a while on a node that is back.

    The node controller then sets Ready to False and nothing else; a kubelet sets it together with
    ContainersReady. (Kubernetes' pkg/controller/util/node, MarkPodsNotReady; our pods have no
    readiness gates.)
    """
    if pod.get("status", {}).get("reason") == "NodeLost":
        return True
    ready, containers = condition(pod, "Ready"), condition(pod, "ContainersReady")
    if ready.get("reason") == "ReadinessGatesNotReady":
        return False
    said = ready.get("status")
    return said == "Unknown" or (said == "False" and containers.get("status") == "True")


def _unscheduled(pod: str, message: str) -> str:
    lacking = sorted(set(RESOURCE.findall(message)))
    if lacking:
        return f"no node has enough {' and '.join(lacking)} for pod {pod}: {message}"
    return f"no node takes pod {pod}: {message}"


def _from(text: str, start: str) -> str:
    return text[text.index(start) :]
