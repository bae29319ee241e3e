"""The pods that come of manifests, those included that KubeRay 1.7 makes of a RayCluster or RayJob.

What it adds is written down from its source at v1.7.0; the cluster's tests hold it against pods
that really exist.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

TEMPLATED = ("Deployment", "Job", "StatefulSet", "DaemonSet")
WAIT_FOR_HEAD = {"cpu": "200m", "memory": "256Mi"}
"""What KubeRay's init container takes, whatever the manifest says."""
AUTOSCALER = "autoscaler"


@dataclass(frozen=True)
class Pod:
    """A pod as it is, or as a manifest will make it."""

    where: str
    """Kind and name of the manifest, and of the group in it."""
    namespace: str
    labels: dict[str, str]
    spec: dict[str, Any]
    most: int = 1
    """How many of its kind there may be at a time."""

    @property
    def of_ray(self) -> bool:
        """Whether it is part of a Ray cluster."""
        return self.labels.get("ray.io/is-ray-node") == "yes"

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of its containers, those that only come first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods_of(manifests: Iterable[Manifest]) -> list[Pod]:
    """Every pod that these manifests are or make."""
    return [pod for manifest in manifests for pod in _pods(manifest)]


def ray_pods(name: str, namespace: str, spec: Manifest, where: str) -> Iterator[Pod]:
    """Head and workers of a Ray cluster; a group of workers is one pod that stands for all."""
    yield _head(name, namespace, spec, where)
    for group in spec["workerGroupSpecs"]:
        yield _worker(name, namespace, spec, group, f"{where}, group {group['groupName']}")


def _pods(manifest: Manifest) -> Iterator[Pod]:
    kind, metadata = manifest["kind"], manifest["metadata"]
    where, namespace = f"{kind} {metadata['name']}", metadata.get("namespace", "")
    spec = manifest.get("spec", {})
    if kind == "Pod":
        yield Pod(where, namespace, metadata.get("labels", {}), spec)
    elif kind in TEMPLATED:
        labels = spec["template"]["metadata"].get("labels", {})
        yield Pod(where, namespace, labels, spec["template"]["spec"], spec.get("replicas", 1))
    elif kind == "RayCluster":
        yield from ray_pods(metadata["name"], namespace, spec, where)
    elif kind == "RayJob":
        cluster = f"{metadata['name']}-x7k2p"  # as the operator names it: five characters more
        yield from ray_pods(cluster, namespace, spec["rayClusterSpec"], where)


def _head(name: str, namespace: str, spec: Manifest, where: str) -> Pod:
    template = copy.deepcopy(spec["headGroupSpec"]["template"])
    pod, ray = template["spec"], template["spec"]["containers"][0]
    if spec.get("enableInTreeAutoscaling"):
        options = spec.get("autoscalerOptions", {})
        autoscaler = {
            "name": AUTOSCALER,
            "image": options.get("image", ray["image"]),
            "imagePullPolicy": options.get("imagePullPolicy", "IfNotPresent"),
            "env": _token(spec),
            "resources": options.get("resources", {}),
            "securityContext": options.get("securityContext", {}),
            "volumeMounts": list(options.get("volumeMounts", ())),
        }
        pod["containers"].append(autoscaler)
        pod["volumes"].append({"name": "ray-logs", "emptyDir": {}})
        for container in (ray, autoscaler):
            container["volumeMounts"].append({"name": "ray-logs", "mountPath": "/tmp/ray"})
    _add_what_all_get(pod, ray, spec)
    labels = _labels(name, "head", "headgroup", template)
    return Pod(f"{where}, head", namespace, labels, pod)


def _worker(name: str, namespace: str, spec: Manifest, group: Manifest, where: str) -> Pod:
    template = copy.deepcopy(group["template"])
    pod, ray = template["spec"], template["spec"]["containers"][0]
    waiting = {
        "name": "wait-gcs-ready",
        "image": ray["image"],
        "imagePullPolicy": ray.get("imagePullPolicy"),
        "securityContext": copy.deepcopy(ray.get("securityContext", {})),
        "env": [*ray.get("env", ()), *_token(spec)],
        "volumeMounts": list(ray.get("volumeMounts", ())),
        "resources": {"requests": WAIT_FOR_HEAD, "limits": WAIT_FOR_HEAD},
    }
    pod.setdefault("initContainers", []).append(waiting)
    _add_what_all_get(pod, ray, spec)
    labels = _labels(name, "worker", group["groupName"], template)
    return Pod(where, namespace, labels, pod, group["maxReplicas"])


def _add_what_all_get(pod: Manifest, ray: Manifest, spec: Manifest) -> None:
    ray["env"] = [*ray.get("env", ()), *_token(spec)]
    if not any(mount["mountPath"] == "/dev/shm" for mount in ray["volumeMounts"]):
        pod["volumes"].append({"name": "shared-mem", "emptyDir": {"medium": "Memory"}})
        ray["volumeMounts"].append({"name": "shared-mem", "mountPath": "/dev/shm"})


def _token(spec: Manifest) -> list[Manifest]:
    options = spec.get("authOptions", {})
    if options.get("mode") != "token":
        return []
    source = {"name": options.get("secretName", "made-by-kuberay"), "key": "auth_token"}
    return [{"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": source}}]


def _labels(cluster: str, node: str, group: str, template: Manifest) -> dict[str, str]:
    given = template.get("metadata", {}).get("labels", {})
    fixed = {"ray.io/cluster": cluster, "ray.io/node-type": node, "ray.io/group": group}
    return {
        "ray.io/is-ray-node": "yes",
        "ray.io/identifier": f"{cluster}-{node}",
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
        **given,
        **fixed,
    }
