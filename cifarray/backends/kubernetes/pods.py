"""The pods of a Ray cluster: locked down as the restricted Pod Security Standard wants it.

k8s/base/raycluster.yaml says the same for the long-lived cluster; one policy test holds both.
"""

from typing import Any

from cifarray.spec.profile import KubernetesSpec, Profile
from cifarray.spec.quantity import amount

HEAD_PORTS = {
    "gcs": 6379,
    "dashboard": 8265,
    "client": 10001,
    "metrics": 8080,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}
WORKER_PORTS = {"metrics": 8080}
GPU = "nvidia.com/gpu"
GRACE_S = 120
"""Longer than the 30 s in which `ray start` drains a node, with room for a checkpoint's upload."""
SCRATCH = "10Gi"
SHM_FOR_OBJECTS = 0.5
"""Share of the shared memory that Ray's object store takes; gloo and NCCL need the rest."""
LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def head_template(profile: Profile, labels: dict[str, str]) -> dict[str, Any]:
    """The head's pod: the driver runs in it, workers do not."""
    spec = of_kubernetes(profile)
    resources = {"cpu": spec.head_cpu, "memory": spec.head_memory}
    container = _container("ray-head", profile, HEAD_PORTS, resources, spec.head_cpu_limit)
    return _template(spec, labels, container, spec.head_shm, "cifarray-head")


def worker_template(profile: Profile, labels: dict[str, str]) -> dict[str, Any]:
    """A worker's pod: one Ray Train worker, with its GPUs."""
    spec = of_kubernetes(profile)
    resources = {"cpu": spec.worker_cpu, "memory": spec.worker_memory}
    if profile.gpus_per_worker:
        resources[GPU] = f"{profile.gpus_per_worker:g}"
    container = _container("ray-worker", profile, WORKER_PORTS, resources, spec.worker_cpu_limit)
    template = _template(spec, labels, container, spec.worker_shm, "cifarray-worker")
    selector = {**spec.node_selector, **spec.spot}
    tolerations = [{"key": key, "operator": "Exists"} for key in spec.spot]
    if profile.gpus_per_worker:
        tolerations.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    if selector:
        template["spec"]["nodeSelector"] = selector
    if tolerations:
        template["spec"].setdefault("tolerations", []).extend(tolerations)
    return template


def object_store_bytes(shm: str) -> int:
    """How much of a pod's shared memory Ray's object store may take."""
    return int(amount(shm) * SHM_FOR_OBJECTS)


def of_kubernetes(profile: Profile) -> KubernetesSpec:
    """The kubernetes section of a profile of that kind."""
    assert profile.kubernetes is not None
    return profile.kubernetes


def _container(
    name: str,
    profile: Profile,
    ports: dict[str, int],
    resources: dict[str, str],
    cpu_limit: str | None,
) -> dict[str, Any]:
    spec = of_kubernetes(profile)
    limits = resources | ({"cpu": cpu_limit} if cpu_limit else {})
    return {
        "name": name,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "env": store_environment(profile),
        "resources": {"requests": resources, "limits": limits},
        "securityContext": LOCKED,
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "data", "mountPath": "/data"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def store_environment(profile: Profile) -> list[dict[str, Any]]:
    """Where the pods find the store, with its keys from the Secret."""
    secret = of_kubernetes(profile).store_secret
    plain = {"AWS_REGION": profile.store.region or "us-east-1"}
    if profile.store.endpoint:
        plain["AWS_ENDPOINT_URL_S3"] = profile.store.endpoint
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for key in keys
        ),
    ]


def _template(
    spec: KubernetesSpec,
    labels: dict[str, str],
    container: dict[str, Any],
    shm: str,
    priority: str,
) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "serviceAccountName": "cifarray-run",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": priority,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}},
            {"name": "data", "emptyDir": {"sizeLimit": SCRATCH}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}},
        ],
    }
    if spec.scheduler_name:
        pod["schedulerName"] = spec.scheduler_name
    if spec.tolerations:
        pod["tolerations"] = [dict(each) for each in spec.tolerations]
    if spec.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": spec.image_pull_secret}]
    return {"metadata": {"labels": dict(labels)}, "spec": pod}
