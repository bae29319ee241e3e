"""`cluster status` on Kubernetes: versions, pods, quota, queue, GPUs and runs of a namespace."""

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from cifarray.backends.kubernetes.client import Kube, RefusedError
from cifarray.backends.kubernetes.pods import GPU, Gang, find_gang, named_gang
from cifarray.backends.kubernetes.rayjob import RUN_LABEL, describe
from cifarray.backends.kubernetes.waiting import Nodes, find_operators, of_pod
from cifarray.errors import JobError
from cifarray.spec.profile import KubernetesSpec

T = TypeVar("T")
ROLE_LABEL, NAME_LABEL = "cifarray/role", "app.kubernetes.io/name"
ENDED = ("Succeeded", "Failed")


def overview(kube: Kube, spec: KubernetesSpec) -> dict[str, Any]:
    """What `cluster status --json` prints. Raises: ClusterError where no API server answers."""
    hidden: dict[str, str] = {}
    gang = _gang(kube, spec)
    return {
        "context": kube.context,
        "namespace": kube.namespace,
        "server": kube.server,
        "mode": spec.mode,
        "versions": {
            "kubernetes": kube.version(),
            "kuberay": _allowed(lambda: _operators(kube), "kuberay", hidden),
            "ray": metadata.version("ray"),
        },
        "ray_cluster": _allowed(lambda: _ray_cluster(kube, spec), "ray_cluster", hidden),
        "pods": _allowed(lambda: _pods(kube), "pods", hidden),
        "quota": _allowed(lambda: _quota(kube), "quota", hidden),
        "gang": gang.scheduler,
        "queue": _allowed(lambda: _queue(kube, gang), "queue", hidden),
        "gpus": _allowed(lambda: gpus(kube), "gpus", hidden),
        "runs": _allowed(lambda: list(map(describe, kube.list("RayJob"))), "runs", hidden),
        "hidden": hidden,
    }


def _gang(kube: Kube, spec: KubernetesSpec) -> Gang:
    """Who would start a run's pods together now; a profile that leaves it open says so itself."""
    try:
        return find_gang(kube, spec) if spec.mode == "rayjob" else Gang()
    except JobError:
        return named_gang(spec)


def gpus(kube: Kube) -> dict[str, Any]:
    """GPUs of the nodes, and how many of them pods of the namespace hold.

    Raises: RefusedError (403) for callers who may not list nodes.
    """
    capacity = [_gpus_in(node["status"].get("allocatable") or {}) for node in kube.list("Node")]
    alive = [pod for pod in kube.list("Pod") if pod["status"].get("phase") not in ENDED]
    return {
        "capacity": sum(capacity),
        "nodes": sum(1 for each in capacity if each),
        "held": sum(
            _gpus_in(container.get("resources", {}).get("requests") or {})
            for pod in alive
            for container in pod["spec"]["containers"]
        ),
    }


def _gpus_in(resources: Mapping[str, Any]) -> int:
    return int(resources.get(GPU, 0))


def _allowed(look: Callable[[], T], what: str, hidden: dict[str, str]) -> T | None:
    """What was seen; where the caller may not look or there is no such kind, why not."""
    try:
        return look()
    except RefusedError as error:
        if error.code not in (403, 404):
            raise
        hidden[what] = error.message or str(error)
        return None


def _operators(kube: Kube) -> list[dict[str, Any]]:
    return [
        {"namespace": each.namespace, "version": each.version or each.image, "ready": each.ready}
        for each in find_operators(kube)
    ]


def _ray_cluster(kube: Kube, spec: KubernetesSpec) -> dict[str, Any] | None:
    found = kube.get("RayCluster", spec.ray_cluster)
    if found is None:
        return None
    status = found.get("status") or {}
    ready = any(
        each["type"] == "HeadPodReady" and each["status"] == "True"
        for each in status.get("conditions") or ()
    )
    return {
        "name": spec.ray_cluster,
        "ready": ready,
        "ray_version": found["spec"].get("rayVersion"),
        "groups": [
            {
                "name": group["groupName"],
                "replicas": group.get("replicas", 0),
                "max": group.get("maxReplicas"),
            }
            for group in found["spec"].get("workerGroupSpecs") or ()
        ],
    }


def _pods(kube: Kube) -> list[dict[str, Any]]:
    nodes = Nodes(kube)
    return [_pod(found, of_pod(kube, found, nodes)) for found in kube.list("Pod")]


def _pod(found: Mapping[str, Any], reason: str) -> dict[str, Any]:
    labels = found["metadata"].get("labels") or {}
    status = found.get("status") or {}
    containers = status.get("containerStatuses") or ()
    return {
        "name": found["metadata"]["name"],
        "role": _role(labels),
        "run": labels.get(RUN_LABEL),
        "state": _state(found),
        "ready": sum(1 for each in containers if each.get("ready")),
        "containers": len(found["spec"]["containers"]),
        "restarts": sum(int(each.get("restartCount", 0)) for each in containers),
        "node": found["spec"].get("nodeName"),
        "reason": reason,
    }


def _role(labels: Mapping[str, str]) -> str:
    if node := labels.get("ray.io/node-type"):
        return node
    return labels.get(ROLE_LABEL) or labels.get(NAME_LABEL) or "other"


def _state(found: Mapping[str, Any]) -> str:
    if found["metadata"].get("deletionTimestamp"):
        return "ending"
    return str((found.get("status") or {}).get("phase", "Pending")).lower()


def _quota(kube: Kube) -> list[dict[str, str]]:
    return [
        {
            "quota": each["metadata"]["name"],
            "resource": resource,
            "used": (each.get("status") or {}).get("used", {}).get(resource, "0"),
            "hard": hard,
        }
        for each in kube.list("ResourceQuota")
        for resource, hard in (each["spec"].get("hard") or {}).items()
    ]


def _queue(kube: Kube, gang: Gang) -> dict[str, Any] | None:
    if gang.scheduler != "kueue" or gang.queue is None:
        return None
    found = kube.get("LocalQueue", gang.queue)
    status = (found or {}).get("status") or {}
    return {
        "name": gang.queue,
        "exists": found is not None,
        "waiting": status.get("pendingWorkloads", 0),
        "admitted": status.get("admittedWorkloads", 0),
    }
