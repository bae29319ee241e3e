"""The pods of a Ray cluster, and the scheduler that starts all pods of a run together.

The pods are locked down as the restricted Pod Security Standard requires. k8s/base/raycluster.yaml
says the same for the long-lived cluster; one policy test holds both.

With gang scheduling all pods of a run start together or not at all:

- Kueue admits a suspended RayJob as a whole, by a label that names the LocalQueue
  (https://docs.ray.io/en/latest/cluster/kubernetes/k8s-ecosystem/kueue.html);
- Volcano and YuniKorn place the pods; KubeRay's operator, started with `--batch-scheduler=volcano`
  or `yunikorn`, makes the group from the RayJob and its labels
  (.../k8s-ecosystem/volcano.html, .../k8s-ecosystem/yunikorn.html);
- scheduler-plugins reads a PodGroup and a label of the pods. KubeRay 1.7 makes that group for a
  RayCluster alone, and with `--batch-scheduler=scheduler-plugins` it refuses every RayJob, so
  cifarray makes the group itself, for an operator without that option
  (https://scheduler-plugins.sigs.k8s.io/docs/plugins/coscheduling/).
"""

from dataclasses import dataclass
from typing import Any

from cifarray.backends.kubernetes.client import Kube, RefusedError
from cifarray.errors import JobError
from cifarray.spec.profile import GangScheduler, KubernetesSpec, Profile
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
OBJECT_STORE = "object-store-memory"
SHM_FOR_OBJECTS = 0.5
"""Share of the shared memory for Ray's object store; gloo and NCCL need the rest."""
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
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
VOLCANO_QUEUE = "volcano.sh/queue-name"
YUNIKORN_QUEUE, YUNIKORN_APP = "yunikorn.apache.org/queue", "yunikorn.apache.org/app-id"
KUBERAY_GANG = "ray.io/gang-scheduling-enabled"
POD_GROUP = "scheduling.x-k8s.io/pod-group"


def head_group(profile: Profile, labels: dict[str, str]) -> dict[str, Any]:
    """The head of a RayJob's or a RayCluster's pods: drivers run in it, workers do not."""
    return {
        "rayStartParams": {
            "num-cpus": "0",
            "dashboard-host": "0.0.0.0",
            **_object_store(of_kubernetes(profile).head_shm),
        },
        "template": head_template(profile, labels),
    }


def worker_group(
    profile: Profile, labels: dict[str, str], name: str, replicas: int, most: int
) -> dict[str, Any]:
    """The workers of a RayJob's or a RayCluster's pods, at least as many as there are now."""
    return {
        "groupName": name,
        "replicas": replicas,
        "minReplicas": replicas,
        "maxReplicas": most,
        "rayStartParams": _object_store(of_kubernetes(profile).worker_shm),
        "template": worker_template(profile, labels),
    }


def head_template(profile: Profile, labels: dict[str, str]) -> dict[str, Any]:
    """The head's pod."""
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


def _object_store(shm: str) -> dict[str, str]:
    """How much of a pod's shared memory Ray's object store may take, for `ray start`."""
    return {OBJECT_STORE: str(int(float(amount(shm)) * SHM_FOR_OBJECTS))}


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


API_GROUPS: dict[str, GangScheduler] = {
    "scheduling.volcano.sh": "volcano",
    "scheduling.x-k8s.io": "scheduler-plugins",
}
"""API groups that show which scheduler a cluster has; YuniKorn has none."""


@dataclass(frozen=True)
class Gang:
    """The scheduler that starts a run's pods together, and its queue."""

    scheduler: GangScheduler = "none"
    queue: str | None = None

    @property
    def suspended(self) -> bool:
        """Whether the RayJob is created suspended, until the scheduler resumes it."""
        return self.scheduler == "kueue"

    def job_labels(self, name: str) -> dict[str, str]:
        """Labels of the RayJob of this name; KubeRay hands them on to its RayCluster."""
        queue = {} if self.queue is None else {self._queue_label: self.queue}
        if self.scheduler == "yunikorn":
            return {KUBERAY_GANG: "true", YUNIKORN_APP: name, **queue}
        return queue

    def pod_labels(self, name: str) -> dict[str, str]:
        """Further labels of the pods of the RayJob of this name."""
        return {POD_GROUP: name} if self.scheduler == "scheduler-plugins" else {}

    def group(self, job: dict[str, Any], pods: int) -> dict[str, Any] | None:
        """The PodGroup of a RayJob's pods, where no operator makes it."""
        if self.scheduler != "scheduler-plugins":
            return None
        metadata = job["metadata"]
        return {
            "apiVersion": "scheduling.x-k8s.io/v1alpha1",
            "kind": "PodGroup",
            "metadata": {name: metadata[name] for name in ("name", "namespace", "labels")},
            "spec": {"minMember": pods},
        }

    @property
    def _queue_label(self) -> str:
        return {"volcano": VOLCANO_QUEUE, "yunikorn": YUNIKORN_QUEUE}.get(
            self.scheduler, KUEUE_QUEUE
        )


def named_gang(spec: KubernetesSpec) -> Gang:
    """What the profile alone says: with `auto`, Kueue where a queue is named, else nothing."""
    if spec.gang != "auto":
        return Gang(spec.gang, spec.queue)
    return Gang("kueue", spec.queue) if spec.queue else Gang()


def find_gang(kube: Kube, spec: KubernetesSpec) -> Gang:
    """What the profile says, completed by what the cluster has. Raises: ClusterError, JobError."""
    named = named_gang(spec)
    if named.queue is not None or spec.gang not in ("auto", "kueue"):
        return named
    queues = _local_queues(kube)
    if len(queues) == 1:
        return Gang("kueue", queues[0])
    if spec.gang == "kueue":
        choice = f"choose one of {', '.join(queues)}" if queues else "the namespace has none"
        raise JobError(
            "kubernetes.gang is kueue, but kubernetes.queue does not name a LocalQueue of "
            f"namespace {kube.namespace}: {choice}"
        )
    usable = (each for group, each in API_GROUPS.items() if _is_usable(kube, group, each))
    return Gang(next(usable, "none"))


def _is_usable(kube: Kube, group: str, scheduler: GangScheduler) -> bool:
    """Whether the cluster has a scheduler, and the caller may make what it needs."""
    makes_group = scheduler == "scheduler-plugins"
    return kube.has(group) and (not makes_group or kube.may("create", group, "podgroups"))


def _local_queues(kube: Kube) -> list[str]:
    """Kueue's queues of the namespace; none where it is absent or the caller may not look."""
    try:
        return sorted(str(each["metadata"]["name"]) for each in kube.list("LocalQueue"))
    except RefusedError as error:
        if error.code not in (403, 404):
            raise
        return []
