"""The jobs of a namespace in either mode, what they wait for, and why they ended."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from cifarray.backends.base import PATIENCE_S, SubmittedJob
from cifarray.backends.kubernetes.access import HEAD, forwarded, head_labels, ready_pod, token
from cifarray.backends.kubernetes.client import Kube, RefusedError, is_ready
from cifarray.backends.kubernetes.pods import HEAD_PORTS
from cifarray.backends.kubernetes.rayjob import OURS, RUN_LABEL, as_job, is_going, run_label
from cifarray.backends.kubernetes.waiting import (
    CLUSTER_LABEL,
    explain,
    find_operators,
    ready_since,
    told,
)
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from cifarray.runs.status import parse_time
from cifarray.spec.profile import KubernetesSpec

Object = Mapping[str, Any]
OPERATOR_ACTS_WITHIN_S = 60.0
PAUSE_S = 2.0
HEAD_PATIENCE_S = 10.0
Forward: TypeAlias = Callable[[Kube, Callable[[], str], int], AbstractContextManager[int]]
"""How a pod's port is forwarded to this machine."""


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
        """What the RayCluster's pods wait for; empty if unknown."""
        return explain_ray_cluster(self._kube, self._ray_cluster)


def explain_ray_cluster(kube: Kube, name: str) -> str:
    """What a RayCluster's pods wait for, or why they died; empty if unknown."""
    return explain(kube, {CLUSTER_LABEL: name}, [])


def explain_rayjob(kube: Kube, found: Object) -> str:
    """What a RayJob's current pods wait for, or why they died; empty if unknown.

    Pods of an older RayJob of the same run, which may be stuck on a node, do not count.
    """
    cluster = _cluster_of(found)
    return explain(kube, {CLUSTER_LABEL: cluster}, [found]) if cluster else told(kube, [found])


def why_rayjob_waits(kube: Kube, found: Object) -> str:
    """What a RayJob that has not ended waits for; empty if unknown."""
    status, cluster = found.get("status") or {}, _cluster_of(found)
    if not status:
        return f"KubeRay's operator has not started it; {_of_operator(kube)}"
    if status.get("jobDeploymentStatus") == "Suspended":
        return "it waits for admission in its queue"
    if reason := explain_rayjob(kube, found):
        return reason
    pods = kube.list("Pod", {CLUSTER_LABEL: cluster}) if cluster else []
    if not all(map(is_ready, pods)):
        return "its pods are starting"
    has_head = any(HEAD.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods)
    if has_head and as_job(found).status != "PENDING":
        return ""  # the driver has everything it needs
    if _idle_s(kube, found, pods) < OPERATOR_ACTS_WITHIN_S:
        return "its pods are starting"
    missing = "all its pods are ready" if has_head else "it has no head pod"
    return f"{missing}, and KubeRay's operator does not create one; {_of_operator(kube)}"


def why_unanswered(kube: Kube, ray_cluster: str) -> str:
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
    """What is visible of KubeRay's operator; most users may not read its namespace."""
    try:
        found = find_operators(kube)
    except RefusedError:
        return "is it running?"
    if not found:
        return "no pod of it exists in any namespace"
    pod = f"{found[0].namespace}/{found[0].pod}"
    return f"see the log of its pod {pod}" if found[0].ready else f"its pod {pod} is not ready"


def _idle_s(kube: Kube, found: Object, pods: list[dict[str, Any]]) -> float:
    """Seconds since the last visible change of a RayJob or its pods."""
    started = str((found.get("status") or {}).get("startTime") or "")
    times = [found["metadata"].get("creationTimestamp"), started, *map(ready_since, pods)]
    known = [time for time in map(parse_time, times) if time is not None]
    return (kube.now() - max(known)).total_seconds() if known else 0.0


def _cluster_of(found: Object) -> str:
    return str((found.get("status") or {}).get("rayClusterName") or "")


@dataclass(frozen=True)
class Head:
    """The Jobs API of a run's head, and the driver's job there."""

    jobs: RayJobs
    pod: str
    """The uid of its pod: a new head has the old one's name, but a new log."""
    submission: str


class RayJobRuns:
    """The RayJobs of a namespace; `sure` says that it is the one to which they were submitted."""

    def __init__(
        self,
        kube: Kube,
        spec: KubernetesSpec,
        sure: bool = True,
        *,
        forward: Forward = forwarded,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._kube, self._spec, self._sure = kube, spec, sure
        self._forward, self._pause_s = forward, pause_s

    def find(self, job_id: str) -> SubmittedJob | None:
        """The RayJob of this name; None if there is none. Raises: ClusterError."""
        found = self._kube.get("RayJob", job_id)
        if found is None:
            self._refuse_if_unsure(job_id)
        return None if found is None else as_job(found)

    def of_run(self, run_id: str) -> SubmittedJob | None:
        """The newest RayJob of a run; None if there is none."""
        found = self._kube.list("RayJob", {RUN_LABEL: run_label(run_id)})
        found.sort(key=lambda each: str(each["metadata"].get("creationTimestamp") or ""))
        return as_job(found[-1]) if found else None

    def all_jobs(self) -> list[SubmittedJob]:
        """RayOur jobs, including those that have ended."""
        return [as_job(found) for found in self._kube.list("RayJob", OURS)]

    def stop(self, job_id: str) -> bool:
        """End the RayJob and its cluster; False if there is none. Raises: ClusterError."""
        deleted = self._kube.delete("RayJob", job_id)
        if not deleted:
            self._refuse_if_unsure(job_id)
        return deleted

    def stop_if_live(self, job_id: str) -> bool:
        """End a RayJob unless it has ended or is being deleted; whether it was running."""
        found = self._kube.get("RayJob", job_id)
        if found is None or as_job(found).ended or is_going(found):
            return False
        return self._kube.delete("RayJob", job_id)

    def logs(self, job_id: str) -> str:
        """What the driver has written so far; empty if no head runs."""
        with suppress(ClusterError), self._head(job_id) as head:
            return head.jobs.logs(head.submission)
        return ""

    def tail(self, job_id: str) -> Iterator[str]:
        """The driver's log as it grows, until its job has ended; a new head begins it again."""
        shown: dict[str, int] = {}
        while True:
            with suppress(ClusterError), self._head(job_id) as head:
                for text in head.jobs.tail(head.submission, shown.get(head.pod, 0)):
                    shown[head.pod] = shown.get(head.pod, 0) + len(text)
                    yield text
                job = head.jobs.find(head.submission)
                if job is not None and job.ended:  # the operator notices that with a delay
                    return
            job = self.find(job_id)
            if job is None or job.ended:
                return
            time.sleep(self._pause_s)

    def why_pending(self, job_id: str) -> str:
        """What a RayJob waits for, in words."""
        found = self._kube.get("RayJob", job_id)
        return "" if found is None else why_rayjob_waits(self._kube, found)

    def _refuse_if_unsure(self, job_id: str) -> None:
        """A missing RayJob proves nothing if this may not be the run's cluster."""
        if not self._sure:
            raise ClusterError(
                f"namespace {self._kube.namespace} of {self._kube.context} has no RayJob "
                f"{job_id}, which was submitted with a context that is not in this kubeconfig; "
                "name its cluster with --cluster PROFILE"
            )

    @contextmanager
    def _head(self, job_id: str) -> Iterator[Head]:
        """The run's head, through a port-forward. Raises: ClusterError while none is ready."""
        status = (self._kube.get("RayJob", job_id) or {}).get("status") or {}
        cluster, submission = status.get("rayClusterName"), status.get("jobId")
        if not cluster or not submission:
            raise ClusterError(f"RayJob {job_id} has no Ray cluster yet")
        find = partial(ready_pod, self._kube, head_labels(cluster), f"the head of {job_id}")
        pod = self._kube.get("Pod", find())
        if pod is None:
            raise ClusterError(f"the head of {job_id} is gone")
        with self._forward(self._kube, find, HEAD_PORTS["dashboard"]) as port:
            address = f"http://127.0.0.1:{port}"
            jobs = RayJobs(address, token(self._kube, self._spec), HEAD_PATIENCE_S)
            yield Head(jobs, str(pod["metadata"].get("uid")), submission)
