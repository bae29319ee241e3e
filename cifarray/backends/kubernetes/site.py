"""The Kubernetes cluster that checks look at, opened when the first one needs it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cifarray.backends.kubernetes.backend import KubernetesCluster
from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.heads import head_labels
from cifarray.backends.kubernetes.pods import (
    head_template,
    object_store_bytes,
    of_kubernetes,
    worker_template,
)
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.spec.profile import KubernetesSpec, Profile

PATIENCE_S = 10.0
HEAD_PATIENCE_S = 5.0
OBJECT_STORE = "object-store-memory"


@dataclass(frozen=True)
class Group:
    """Pods of one kind: a head, or the workers of a group."""

    name: str
    pod: dict[str, Any]
    """The spec of its template."""
    start: dict[str, str]
    """Parameters of `ray start`."""
    now: int = 1
    most: int = 1

    @property
    def container(self) -> dict[str, Any]:
        """The one that runs Ray."""
        first: dict[str, Any] = self.pod["containers"][0]
        return first


@dataclass
class Site:
    """A profile of kind kubernetes and what its cluster answers."""

    profile: Profile
    spec: KubernetesSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = of_kubernetes(self.profile)

    @cached_property
    def kube(self) -> Kube:
        """The namespace. Raises: ClusterError."""
        return Kube.open(self.spec, PATIENCE_S)

    @cached_property
    def ray_cluster(self) -> dict[str, Any] | None:
        """The long-lived RayCluster; None where there is none. Raises: ClusterError."""
        return self.kube.get("RayCluster", self.spec.ray_cluster)

    @property
    def head_is_ready(self) -> bool:
        """Whether the RayCluster's head could answer."""
        return any(
            each["type"] == "Ready" and each["status"] == "True"
            for pod in self.kube.list("Pod", head_labels(self.spec.ray_cluster))
            for each in pod["status"].get("conditions") or ()
        )

    @cached_property
    def head(self) -> RayJobs:
        """The Jobs API of the RayCluster's head, with the namespace's token."""
        shared = self.spec.model_copy(update={"mode": "ray-jobs"})
        cluster = KubernetesCluster(self.profile.name, shared, self.kube, self.profile.dashboard)
        jobs = cluster.jobs(HEAD_PATIENCE_S)
        assert isinstance(jobs, RayJobs)
        return jobs

    def run_groups(self) -> list[Group]:
        """Head and workers of a run with a cluster of its own."""
        shared = {"head": self.spec.head_shm, "workers": self.spec.worker_shm}
        start = {name: {OBJECT_STORE: str(object_store_bytes(shm))} for name, shm in shared.items()}
        head, worker = head_template(self.profile, {}), worker_template(self.profile, {})
        most = self.profile.workers
        return [
            Group("a run's head", head["spec"], start["head"]),
            Group("a run's workers", worker["spec"], start["workers"], 0, most),
        ]

    def shared_groups(self) -> list[Group]:
        """Head and worker groups of the RayCluster; none where there is none."""
        if self.ray_cluster is None:
            return []
        spec, name = self.ray_cluster["spec"], f"RayCluster {self.spec.ray_cluster}"
        head = spec["headGroupSpec"]
        return [
            Group(f"{name}'s head", head["template"]["spec"], head.get("rayStartParams") or {}),
            *(
                Group(
                    f"{name}'s group {group['groupName']}",
                    group["template"]["spec"],
                    group.get("rayStartParams") or {},
                    group.get("replicas", 0),
                    group.get("maxReplicas", 0),
                )
                for group in spec.get("workerGroupSpecs") or ()
            ),
        ]
