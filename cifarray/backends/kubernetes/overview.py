"""`cluster status` on Kubernetes: versions, pods, quota, queue, GPUs and runs of a namespace."""

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from cifarray.backends.base import CommandOutput, Table
from cifarray.backends.kubernetes.client import Kube, RefusedError, holds
from cifarray.backends.kubernetes.pods import GPU, Gang
from cifarray.backends.kubernetes.rayjob import RUN_LABEL, describe
from cifarray.backends.kubernetes.waiting import Nodes, find_operators, of_pod
from cifarray.spec.profile import KubernetesSpec

POD_COLUMNS = ("pod", "role", "state", "ready", "restarts", "node", "waits for")
QUOTA_COLUMNS = ("quota", "resource", "used", "hard")
T = TypeVar("T")
ROLE_LABEL, NAME_LABEL = "cifarray/role", "app.kubernetes.io/name"
ENDED = ("Succeeded", "Failed")


def overview(kube: Kube, spec: KubernetesSpec, gang: Gang) -> dict[str, Any]:
    """What `cluster status --json` prints. Raises: ClusterError if no API server answers."""
    hidden: dict[str, str] = {}
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


def shown(profile: str, seen: dict[str, Any]) -> CommandOutput:
    """The lines that `cluster status` prints for a person."""
    lines = [f"{name:<11}{value}" for name, value in _head_lines(seen)]
    tables: list[Table] = []
    if seen["pods"]:
        tables.append((POD_COLUMNS, list(map(_pod_row, seen["pods"]))))
    if seen["quota"]:
        rows = [[each[name] for name in QUOTA_COLUMNS] for each in seen["quota"]]
        tables.append((QUOTA_COLUMNS, rows))
    return CommandOutput({"profile": profile, **seen}, lines, tables)


def gpus(kube: Kube) -> dict[str, Any]:
    """GPUs of the nodes, and how many of them are used by the namespace's pods.

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
    """What was found, or why not: the caller lacks the right, or the kind does not exist."""
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
    return {
        "name": spec.ray_cluster,
        "ready": holds(found, "HeadPodReady"),
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


def _head_lines(seen: dict[str, Any]) -> list[tuple[str, str]]:
    hidden, versions = seen["hidden"], seen["versions"]
    lines = [
        ("cluster", f"{seen['context']} at {seen['server']}, Kubernetes {versions['kubernetes']}"),
        ("namespace", seen["namespace"]),
        ("operator", _operator_words(versions["kuberay"], hidden.get("kuberay"))),
        ("RayCluster", _ray_cluster_words(seen["ray_cluster"], hidden.get("ray_cluster"))),
        ("Ray here", versions["ray"]),
        ("GPUs", _gpu_words(seen["gpus"], hidden.get("gpus"))),
        ("gang", seen["gang"]),
    ]
    if queue := seen["queue"]:
        words = f"{queue['waiting']} waiting, {queue['admitted']} admitted"
        lines.append(("queue", f"{queue['name']}: {words if queue['exists'] else 'not there'}"))
    for run in seen["runs"] or ():
        told = f": {run['message']}" if run["message"] else ""
        lines.append(("run", f"{run['run']} ({run['status'].lower()}{told})"))
    for what in sorted({"pods", "quota", "queue", "runs"} & hidden.keys()):
        lines.append((what, f"not shown ({hidden[what]})"))
    return lines


def _operator_words(operators: list[dict[str, Any]] | None, why: str | None) -> str:
    if operators is None:
        return f"not shown ({why})"
    if not operators:
        return "not running; install KubeRay's operator 1.7 or newer"
    return ", ".join(
        f"KubeRay {each['version']} in namespace {each['namespace']}"
        + ("" if each["ready"] else " (not ready)")
        for each in operators
    )


def _ray_cluster_words(found: dict[str, Any] | None, why: str | None) -> str:
    if found is None:
        return f"not shown ({why})" if why else "none; `cifarray cluster up` creates it"
    groups = "".join(
        f", {each['replicas']} of {each['max']} {each['name']}" for each in found["groups"]
    )
    state = "ready" if found["ready"] else "not ready"
    return f"{found['name']} {state}, Ray {found['ray_version']}{groups}"


def _gpu_words(found: dict[str, Any] | None, why: str | None) -> str:
    if found is None:
        return f"not shown ({why})"
    return f"{found['capacity']} on {found['nodes']} nodes, {found['held']} held here"


def _pod_row(pod: dict[str, Any]) -> list[object]:
    ready = f"{pod['ready']}/{pod['containers']}"
    role = f"{pod['role']} of {pod['run']}" if pod["run"] else pod["role"]
    return [
        pod["name"],
        role,
        pod["state"],
        ready,
        pod["restarts"],
        pod["node"],
        pod["reason"].partition(": ")[0] or None,
    ]
