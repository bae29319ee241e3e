"""Runs with Ray clusters of their own: each job is a RayJob of the namespace."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.forward import forwarded, ready_pod
from cifarray.backends.kubernetes.heads import head_labels, token
from cifarray.backends.kubernetes.pods import HEAD_PORTS
from cifarray.backends.kubernetes.rayjob import OURS, RUN_LABEL, run_label
from cifarray.backends.kubernetes.states import as_job, is_going
from cifarray.backends.kubernetes.waiting_jobs import why_rayjob_waits
from cifarray.backends.ray_jobs.client import RayJob, RayJobs
from cifarray.errors import ClusterError
from cifarray.spec.profile import KubernetesSpec

PAUSE_S = 2.0
HEAD_PATIENCE_S = 10.0
Forward: TypeAlias = Callable[[Kube, Callable[[], str], int], AbstractContextManager[int]]
"""How a port of a pod comes to this machine."""


@dataclass(frozen=True)
class Head:
    """The Jobs API of a run's head, and the driver's job there."""

    jobs: RayJobs
    pod: str
    """The uid of its pod: a new head bears the old one's name, and its log begins anew."""
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

    def find(self, job_id: str) -> RayJob | None:
        """The RayJob of this name; None where there is none. Raises: ClusterError."""
        found = self._kube.get("RayJob", job_id)
        if found is None:
            self._refuse_if_unsure(job_id)
        return None if found is None else as_job(found)

    def of_run(self, run_id: str) -> RayJob | None:
        """The newest RayJob of a run; None where there is none."""
        found = self._kube.list("RayJob", {RUN_LABEL: run_label(run_id)})
        found.sort(key=lambda each: str(each["metadata"].get("creationTimestamp") or ""))
        return as_job(found[-1]) if found else None

    def all_jobs(self) -> list[RayJob]:
        """RayJobs of ours, those that have ended too."""
        return [as_job(found) for found in self._kube.list("RayJob", OURS)]

    def live_jobs(self) -> list[RayJob]:
        """RayJobs of ours that have not ended."""
        return [job for job in self.all_jobs() if not job.ended]

    def live_drivers(self) -> list[str]:
        """No program joins a run's cluster by itself."""
        return []

    def stop(self, job_id: str) -> bool:
        """End the RayJob and its cluster; False where there is none. Raises: ClusterError."""
        deleted = self._kube.delete("RayJob", job_id)
        if not deleted:
            self._refuse_if_unsure(job_id)
        return deleted

    def stop_if_live(self, job_id: str) -> bool:
        """End a RayJob that has not ended by itself and is not being ended; whether it was one."""
        found = self._kube.get("RayJob", job_id)
        if found is None or as_job(found).ended or is_going(found):
            return False
        return self._kube.delete("RayJob", job_id)

    def logs(self, job_id: str) -> str:
        """What the driver has written so far; empty where no head runs."""
        with suppress(ClusterError), self._head(job_id) as head:
            return head.jobs.logs(head.submission)
        return ""

    def tail(self, job_id: str) -> Iterator[str]:
        """The driver's log as it grows, until its job has ended; a new head begins it anew."""
        shown: dict[str, int] = {}
        while True:
            with suppress(ClusterError), self._head(job_id) as head:
                for text in head.jobs.tail(head.submission, shown.get(head.pod, 0)):
                    shown[head.pod] = shown.get(head.pod, 0) + len(text)
                    yield text
                job = head.jobs.find(head.submission)
                if job is not None and job.ended:  # the operator notices that some time later
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
        """An absent RayJob says nothing where this may be another cluster than the run's."""
        if not self._sure:
            raise ClusterError(
                f"namespace {self._kube.namespace} of {self._kube.context} has no RayJob {job_id}, "
                "which was submitted through a context that this kubeconfig does not have; name "
                "its cluster with --cluster PROFILE"
            )

    @contextmanager
    def _head(self, job_id: str) -> Iterator[Head]:
        """The run's head, through a port-forward. Raises: ClusterError while none is ready."""
        status = (self._kube.get("RayJob", job_id) or {}).get("status") or {}
        cluster, submission = status.get("rayClusterName"), status.get("jobId")
        if not cluster or not submission:
            raise ClusterError(f"RayJob {job_id} has no cluster yet")
        find = partial(ready_pod, self._kube, head_labels(cluster), f"the head of {job_id}")
        pod = self._kube.get("Pod", find())
        if pod is None:
            raise ClusterError(f"the head of {job_id} has gone")
        with self._forward(self._kube, find, HEAD_PORTS["dashboard"]) as port:
            address = f"http://127.0.0.1:{port}"
            jobs = RayJobs(address, token(self._kube, self._spec), HEAD_PATIENCE_S)
            yield Head(jobs, str(pod["metadata"].get("uid")), submission)
