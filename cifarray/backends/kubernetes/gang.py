"""Gang scheduling: all pods of a run start together, or none takes room from others.

What each scheduler asks for:

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
from cifarray.spec.profile import GangScheduler, KubernetesSpec

KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
VOLCANO_QUEUE = "volcano.sh/queue-name"
YUNIKORN_QUEUE, YUNIKORN_APP = "yunikorn.apache.org/queue", "yunikorn.apache.org/app-id"
KUBERAY_GANG = "ray.io/gang-scheduling-enabled"
POD_GROUP = "scheduling.x-k8s.io/pod-group"
API_GROUPS: dict[str, GangScheduler] = {
    "scheduling.volcano.sh": "volcano",
    "scheduling.x-k8s.io": "scheduler-plugins",
}
"""By which a cluster shows that it has a scheduler; YuniKorn has no API group."""


@dataclass(frozen=True)
class Gang:
    """The scheduler that starts a run's pods together, and its queue."""

    scheduler: GangScheduler = "none"
    queue: str | None = None

    @property
    def suspended(self) -> bool:
        """Whether the RayJob begins suspended, for the scheduler to wake."""
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
        choice = f"choose one of {', '.join(queues)}" if queues else "it has none"
        raise JobError(
            "kubernetes.gang is kueue, and kubernetes.queue names no LocalQueue of namespace "
            f"{kube.namespace}: {choice}"
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
