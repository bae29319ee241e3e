"""What a run's job waits for on Kubernetes, or died of, in either mode."""

from collections.abc import Mapping
from typing import Any

from cifarray.backends.kubernetes.client import Kube, RefusedError
from cifarray.backends.kubernetes.heads import HEAD, head_labels
from cifarray.backends.kubernetes.operators import find_operators
from cifarray.backends.kubernetes.states import as_job
from cifarray.backends.kubernetes.waiting import CLUSTER_LABEL, explain, is_ready, ready_since, told
from cifarray.backends.ray_jobs.client import PATIENCE_S, RayJobs
from cifarray.runs.status import parse_time

Object = Mapping[str, Any]
OPERATOR_ACTS_WITHIN_S = 60.0


class SharedRayJobs(RayJobs):
    """Jobs of the long-lived RayCluster: they wait for its pods, never for each other."""

    def __init__(
        self,
        kube: Kube,
        ray_cluster: str,
        dashboard: str,
        token: str | None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(dashboard, token, patience_s)
        self._kube, self._ray_cluster = kube, ray_cluster

    def why_pending(self, submission_id: str) -> str:
        """What the RayCluster's pods wait for; empty if for nothing known."""
        return explain_ray_cluster(self._kube, self._ray_cluster)


def explain_ray_cluster(kube: Kube, name: str) -> str:
    """What a RayCluster's pods wait for or died of; empty if nothing is known."""
    return explain(kube, {CLUSTER_LABEL: name}, [])


def explain_rayjob(kube: Kube, found: Object) -> str:
    """What a RayJob's present pods wait for or died of; empty if nothing is known.

    Pods of an older RayJob of the same run, which may be stuck on a node for long, are not its own.
    """
    cluster = _cluster_of(found)
    return explain(kube, {CLUSTER_LABEL: cluster}, [found]) if cluster else told(kube, [found])


def why_rayjob_waits(kube: Kube, found: Object) -> str:
    """What a RayJob that has not ended waits for; empty if for nothing known."""
    status, cluster = found.get("status") or {}, _cluster_of(found)
    if not status:
        return f"KubeRay's operator has not taken it up; {_of_operator(kube)}"
    if status.get("jobDeploymentStatus") == "Suspended":
        return "it waits in its queue to be admitted"
    if reason := explain_rayjob(kube, found):
        return reason
    pods = kube.list("Pod", {CLUSTER_LABEL: cluster}) if cluster else []
    if not all(map(is_ready, pods)):
        return "its pods are starting"
    has_head = any(HEAD.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods)
    if has_head and as_job(found).status != "PENDING":
        return ""  # the driver has all that it waits for
    if _idle_s(kube, found, pods) < OPERATOR_ACTS_WITHIN_S:
        return "its pods are starting"
    missing = "all its pods are ready" if has_head else "it has no head pod"
    return f"{missing}, and KubeRay's operator does nothing about it; {_of_operator(kube)}"


def why_silent(kube: Kube, ray_cluster: str) -> str:
    """Why the head of the long-lived RayCluster does not answer."""
    labels = head_labels(ray_cluster)
    if reason := explain(kube, labels, []):
        return reason
    heads = kube.list("Pod", labels)
    if not heads:
        return f"RayCluster {ray_cluster} has no head pod; {_of_operator(kube)}"
    name, node = heads[0]["metadata"]["name"], heads[0].get("spec", {}).get("nodeName")
    state = "does not answer" if is_ready(heads[0]) else "is not ready"
    return f"head pod {name} of RayCluster {ray_cluster}, on node {node}, {state}"


def _of_operator(kube: Kube) -> str:
    """What can be seen of KubeRay's operator; most people may not look into its namespace."""
    try:
        found = find_operators(kube)
    except RefusedError:
        return "is it running?"
    if not found:
        return "no namespace has a pod of it"
    pod = f"{found[0].namespace}/{found[0].pod}"
    return f"see the log of its pod {pod}" if found[0].ready else f"its pod {pod} is not ready"


def _idle_s(kube: Kube, found: Object, pods: list[dict[str, Any]]) -> float:
    """Seconds since something was last seen to happen to a RayJob or its pods."""
    started = str((found.get("status") or {}).get("startTime") or "")
    times = [found["metadata"].get("creationTimestamp"), started, *map(ready_since, pods)]
    known = [time for time in map(parse_time, times) if time is not None]
    return (kube.now() - max(known)).total_seconds() if known else 0.0


def _cluster_of(found: Object) -> str:
    return str((found.get("status") or {}).get("rayClusterName") or "")
