"""A cluster profile: where a job runs and what a worker gets there, but not which model."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cifarray.spec.quantity import amount
from cifarray.spec.record import Record

LEAST_MEMORY_BYTES = 1 << 20


def _cpus(text: str) -> str:
    if amount(text) <= 0:
        raise ValueError("a pod requires some CPU, such as 500m or 2")
    return text


def _memory(text: str) -> str:
    if amount(text) < LEAST_MEMORY_BYTES:  # 512m is half a byte
        raise ValueError("too little memory; write it as 512Mi or 16Gi")
    return text


GangScheduler = Literal["kueue", "volcano", "yunikorn", "scheduler-plugins", "none"]
"""What starts all pods of a run together."""
Cpus = Annotated[str, AfterValidator(_cpus)]
Memory = Annotated[str, AfterValidator(_memory)]


class StoreSpec(Record):
    """The root of the store: a local directory or s3://bucket/prefix."""

    uri: str = "./store"
    endpoint: str | None = None
    """Address of an S3-compatible server; None means AWS."""
    region: str | None = None
    """Region of the bucket; None: us-east-1 in pods, elsewhere what the AWS settings there say."""


class KubernetesSpec(Record):
    """How a Kubernetes cluster is reached, and what a run's pods request."""

    mode: Literal["rayjob", "ray-jobs"] = "rayjob"
    """rayjob: each run has its own Ray cluster; ray-jobs: the long-lived RayCluster."""
    context: str | None = None
    """Context of the kubeconfig; None: its current one."""
    namespace: str = "cifarray"
    image: str = "cifarray:0.1.0"
    image_pull_secret: str | None = None
    ray_cluster: str = "cifarray"
    """The RayCluster of mode ray-jobs."""
    store_service: str | None = "cifarray-store"
    """Service of a store inside the cluster, reached through a port-forward that the CLI opens;
    None: the store's endpoint can be reached from here too."""
    store_secret: str = "cifarray-store"
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for Ray, auth_token."""
    worker_cpu: Cpus = "4"
    worker_cpu_limit: Cpus | None = None
    """CPU limit of a worker, used if its node has spare CPUs; None: worker_cpu."""
    worker_memory: Memory = "16Gi"
    worker_shm: Memory = "4Gi"
    """A worker's /dev/shm, for gloo, NCCL and Ray's object store; part of worker_memory."""
    head_cpu: Cpus = "1"
    head_cpu_limit: Cpus | None = None
    head_memory: Memory = "6Gi"
    head_shm: Memory = "1Gi"
    gang: Literal["auto"] | GangScheduler = "auto"
    """What starts all pods of a run together. auto: Kueue where `queue` is given or the namespace
    has one LocalQueue, else Volcano or scheduler-plugins if the cluster has it, else nothing."""
    queue: str | None = None
    """The queue of that scheduler: Kueue's LocalQueue, Volcano's Queue, YuniKorn's path."""
    scheduler_name: str | None = None
    """Scheduler of a run's pods, if scheduler-plugins runs next to the cluster's own; None: the
    cluster's own, or the one that KubeRay's operator sets."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the workers' nodes."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of all pods of a run; those for GPUs and for `spot` are added automatically."""
    spot: dict[str, str] = Field(default_factory=dict)
    """Labels of preemptible nodes: workers, never heads, run there and tolerate such taints."""
    max_wait_s: int = Field(default=3600, ge=60)
    """How long a run may wait for its pods, over all its clusters."""
    partial_wait_s: int | None = Field(default=None, ge=60)
    """How long one cluster of a run may keep some of its pods while others are missing; then it
    releases all of them, and the next cluster tries again. None: its share of max_wait_s."""
    max_run_s: int = Field(default=7 * 86400, ge=60)
    """How long a run may take, over all its clusters."""
    retries: int = Field(default=2, ge=0)
    """How many more clusters a run gets when one fails."""
    keep_ended_s: int = Field(default=7 * 86400, ge=0)
    """RayJobs of runs that ended longer ago than this are removed at the next submission."""

    @model_validator(mode="after")
    def _limits_are_no_lower_than_what_is_asked_for(self) -> Self:
        for part in ("worker", "head"):
            asked, limit = getattr(self, f"{part}_cpu"), getattr(self, f"{part}_cpu_limit")
            if limit is not None and amount(limit) < amount(asked):
                raise ValueError(f"{part}_cpu_limit {limit} is below {part}_cpu {asked}; raise it")
        return self

    @property
    def has_cluster_per_run(self) -> bool:
        """Whether each run gets a Ray cluster of its own, which its RayJob retries and ends."""
        return self.mode == "rayjob"

    @property
    def cluster_wait_s(self) -> int:
        """How long one Ray cluster may keep some of a run's pods and wait for the others."""
        share = max(1, self.max_wait_s // (self.retries + 1 if self.has_cluster_per_run else 1))
        return share if self.partial_wait_s is None else min(share, self.partial_wait_s)

    @property
    def cpus_of_a_worker(self) -> int:
        """The CPUs that Ray counts in a worker's pod: KubeRay rounds its limit up."""
        return math.ceil(amount(self.worker_cpu_limit or self.worker_cpu))


UNREAD = {"ray-jobs": ("gang", "queue", "retries", "keep_ended_s"), "rayjob": ()}
"""Fields of the section that a mode does not use: they are for RayJobs."""


class Profile(Record):
    """Where a job runs: how many workers, what each gets, and how the cluster is reached."""

    name: str
    kind: Literal["local", "kubernetes"]
    description: str = ""
    workers: int = Field(default=2, ge=1)
    """The maximum number of Train workers; a run uses all of them by default."""
    cpus_per_worker: float = Field(default=0.5, ge=0.0)
    """Logical CPUs that Ray reserves for a worker. Leave one CPU free for Ray Data."""
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    threads_per_worker: int | None = Field(default=None, ge=1)
    """torch's threads in each worker; None: cores of the node / workers on it."""
    cache_bytes_per_worker: int = Field(default=4 << 30, ge=0)
    """A shard up to this size stays on the worker's device; a larger one is streamed."""
    max_failures: int = Field(default=3, ge=0)
    """How often a dead worker is replaced before the run fails."""
    worker_start_timeout_s: float = Field(default=300.0, gt=0.0)
    store: StoreSpec = StoreSpec()
    store_patience_s: float = Field(default=1800.0, ge=0.0)
    """How long a run waits for a store that does not answer or is full before it fails."""
    address: str | None = None
    """GCS address (host:port) of a node that the user started; None: cifarray starts its own."""
    dashboard: str | None = None
    """Dashboard and Jobs API of that node, as http://host:port."""
    kubernetes: KubernetesSpec | None = None

    @property
    def has_pod_per_worker(self) -> bool:
        """Whether each worker runs in a pod that was made for it, and may have to wait for it."""
        return self.kubernetes is not None

    @property
    def store_is_inside(self) -> bool:
        """Whether the store is reached through the cluster, with the cluster's keys."""
        return self.kubernetes is not None

    @property
    def unread_fields(self) -> list[str]:
        """Dotted paths of fields that are given but not used in the profile's mode."""
        section = self.kubernetes
        given = section.model_fields_set & set(UNREAD[section.mode]) if section else set()
        return sorted(f"kubernetes.{name}" for name in given)

    @model_validator(mode="before")
    @classmethod
    def _fits_its_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kind, section = values.get("kind"), values.get("kubernetes")
        if kind == "local" and section is not None:
            raise ValueError("a profile of kind local has no kubernetes section")
        if kind == "kubernetes" and values.get("address"):
            raise ValueError("a profile of kind kubernetes takes no address, only a dashboard")
        return {**values, "kubernetes": section or {}} if kind == "kubernetes" else values

    @model_validator(mode="after")
    def _fits_its_pods(self) -> Self:
        if self.kubernetes is None:
            return self
        if not self.gpus_per_worker.is_integer():
            raise ValueError(
                f"gpus_per_worker {self.gpus_per_worker:g} is not a whole number, but Kubernetes "
                "cannot divide a GPU; give 0, 1 or more"
            )
        # The pods of the long-lived RayCluster come from its own manifest.
        cpus = self.kubernetes.cpus_of_a_worker
        if self.kubernetes.has_cluster_per_run and self.cpus_per_worker >= cpus:
            raise ValueError(
                f"cpus_per_worker {self.cpus_per_worker:g} leaves no CPU for Ray Data: Ray "
                f"counts {cpus} CPUs in a worker's pod; lower it, or raise kubernetes.worker_cpu "
                "(or worker_cpu_limit, where that is given)"
            )
        return self
