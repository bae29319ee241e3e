"""A Kubernetes cluster as submit, logs, stop and status use it, in both of its modes."""

import atexit
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cifarray.errors import ClusterError
from cifarray.spec.profile import KubernetesSpec, Profile
from cifarray.submit.jobs_api import PATIENCE_S, RayJob, RayJobs
from cifarray.submit.kubernetes.access import decoded
from cifarray.submit.kubernetes.api import Kube
from cifarray.submit.kubernetes.forward import forwarded, ready_pod
from cifarray.submit.kubernetes.pods import HEAD_PORTS, of_kubernetes
from cifarray.submit.kubernetes.rayjob import JOB_LABEL, RUN_LABEL
from cifarray.submit.kubernetes.waiting import explain

T = TypeVar("T")
TOKEN_KEY = "auth_token"
STATES = {"SUCCEEDED": "SUCCEEDED", "STOPPED": "STOPPED", "FAILED": "FAILED"}
WAITING = ("", "Initializing", "Waiting", "Suspended", "Retrying")
ENDED = ("Complete", "Failed", "ValidationFailed")
HEAD = {"ray.io/node-type": "head"}
OURS = {"app.kubernetes.io/part-of": "cifarray"}
_lasting = ExitStack()
atexit.register(_lasting.close)


def for_this_command(opened: AbstractContextManager[T]) -> T:
    """Enter a context that stays open until this process ends."""
    return _lasting.enter_context(opened)


@dataclass
class KubernetesCluster:
    """One namespace of one cluster; what a run's status says of it is enough to find it again."""

    profile: str
    spec: KubernetesSpec
    kube: Kube
    own: bool = field(default=False, init=False)
    is_here: bool = field(default=False, init=False)
    """Its pods read none of this machine's files."""

    @property
    def dashboard(self) -> str:
        """How to see Ray's dashboard."""
        return self.dashboard_of(head_labels(self.spec.ray_cluster))

    def dashboard_of(self, labels: Mapping[str, str]) -> str:
        """How to see the dashboard of the head with these labels."""
        namespace = f"kubectl -n {self.kube.namespace}"
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return f"{namespace} port-forward $({namespace} get pod -o name -l {selector}) 8265"

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return f"namespace {self.kube.namespace} of {self.kube.context}"

    @property
    def shared(self) -> bool:
        """Whether runs go to the long-lived RayCluster."""
        return self.spec.mode == "ray-jobs"

    def jobs(self, patience_s: float = PATIENCE_S) -> "RayJobs | RayJobRuns":
        """Its jobs: those of the long-lived cluster, or the RayJobs of the namespace."""
        if not self.shared:
            return RayJobRuns(self.kube, self.spec)
        labels = head_labels(self.spec.ray_cluster)
        find = partial(ready_pod, self.kube, labels, f"RayCluster {self.spec.ray_cluster}")
        port = for_this_command(forwarded(self.kube, find, HEAD_PORTS["dashboard"]))
        return RayJobs(f"http://127.0.0.1:{port}", token(self.kube, self.spec), patience_s)

    def is_gone(self) -> bool:
        """Nothing is certain of a cluster that others run."""
        return False

    def record(self, job_id: str | None) -> dict[str, Any]:
        """What a run's status says of it; no secret."""
        return {
            "profile": self.profile,
            "kind": "kubernetes",
            "address": self.address,
            "dashboard": self.dashboard,
            "job_id": job_id,
            "own": False,
            "kubernetes": self.spec.model_dump(mode="json", exclude_defaults=True)
            | {"context": self.kube.context},
        }


class RayJobRuns:
    """Runs with Ray clusters of their own: each job is a RayJob of the namespace."""

    def __init__(self, kube: Kube, spec: KubernetesSpec) -> None:
        self._kube, self._spec = kube, spec

    def find(self, job_id: str) -> RayJob | None:
        """The RayJob of this name; None where there is none."""
        found = self._kube.get("RayJob", job_id)
        return None if found is None else as_job(found)

    def live_jobs(self) -> list[RayJob]:
        """RayJobs of ours that have not ended."""
        jobs = (as_job(found) for found in self._kube.list("RayJob", OURS))
        return [job for job in jobs if not job.ended]

    def live_drivers(self) -> list[str]:
        """No program joins a run's cluster by itself."""
        return []

    def stop(self, job_id: str) -> bool:
        """End the RayJob and its cluster; False where there is none."""
        return self._kube.delete("RayJob", job_id)

    def logs(self, job_id: str) -> str:
        """What the driver has written so far; empty where no head runs."""
        with suppress(ClusterError), self._head(job_id) as (jobs, submission):
            return jobs.logs(submission)
        return ""

    def tail(self, job_id: str) -> Iterator[str]:
        """The driver's log as it grows; a new head begins it anew."""
        while True:
            with suppress(ClusterError), self._head(job_id) as (jobs, submission):
                yield from jobs.tail(submission)
            job = self.find(job_id)
            if job is None or job.ended:
                return

    def why_pending(self, job_id: str) -> str:
        """What a RayJob waits for, in words."""
        found = self._kube.get("RayJob", job_id)
        if found is None:
            return ""
        status = found.get("status") or {}
        if not status:
            return "KubeRay's operator has not taken it up; is it running?"
        if status.get("jobDeploymentStatus") == "Suspended":
            return "it waits in its queue to be admitted"
        cluster = status.get("rayClusterName", "")
        run = found["metadata"]["labels"].get(RUN_LABEL, "")
        return explain(self._kube, {RUN_LABEL: run}, [job_id, cluster]) or "its pods are starting"

    @contextmanager
    def _head(self, job_id: str) -> Iterator[tuple[RayJobs, str]]:
        """The Jobs API of the run's head, and the id of the driver's job there."""
        found = self._kube.get("RayJob", job_id)
        status = (found or {}).get("status") or {}
        cluster, submission = status.get("rayClusterName"), status.get("jobId")
        if not cluster or not submission:
            raise ClusterError(f"RayJob {job_id} has no cluster yet")
        labels = head_labels(cluster)
        find = partial(ready_pod, self._kube, labels, f"the head of {job_id}")
        find()
        with forwarded(self._kube, find, HEAD_PORTS["dashboard"]) as port:
            address = f"http://127.0.0.1:{port}"
            yield RayJobs(address, token(self._kube, self._spec), patience_s=10.0), submission


def open_cluster(profile: Profile) -> KubernetesCluster:
    """The cluster of a profile of kind kubernetes. Raises: ClusterError."""
    spec = of_kubernetes(profile)
    return KubernetesCluster(profile.name, spec, Kube.open(spec))


def recorded_kubernetes(record: Mapping[str, Any]) -> KubernetesCluster:
    """The cluster that a run's status names. Raises: ClusterError."""
    spec = KubernetesSpec.model_validate(record["kubernetes"])
    return KubernetesCluster(str(record.get("profile")), spec, Kube.open(spec))


def head_labels(cluster: str) -> dict[str, str]:
    """Labels of a Ray cluster's head."""
    return {"ray.io/cluster": cluster, **HEAD}


def token(kube: Kube, spec: KubernetesSpec) -> str | None:
    """The token of the namespace's Ray clusters."""
    return decoded(kube.get("Secret", spec.store_secret)).get(TOKEN_KEY)


def as_job(found: Mapping[str, Any]) -> RayJob:
    """A RayJob object in the words of the Jobs API."""
    status = found.get("status") or {}
    stage, message = status.get("jobDeploymentStatus", ""), _told(str(status.get("message") or ""))
    if stage in ENDED:
        state = STATES.get(status.get("jobStatus", ""), "FAILED")
        if stage != "Complete" and state == "SUCCEEDED":
            state = "FAILED"
    elif stage in WAITING:
        state = "PENDING"
    else:
        state = "RUNNING"
    reason = status.get("reason")
    told = f"{reason}: {message}" if reason and message else str(reason or message)
    return RayJob(str(found["metadata"]["name"]), state, told, None)


def _told(message: str) -> str:
    """One line of a message: Ray puts the end of a failed job's log behind its first one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].partition(', last available logs')[0]}: {lines[-1]}"


def ended_before(found: Mapping[str, Any], moment: str) -> bool:
    """Whether a RayJob ended before a moment, given in UTC as Kubernetes writes it."""
    end = (found.get("status") or {}).get("endTime")
    return bool(as_job(found).ended and end and end < moment)


def describe(found: Mapping[str, Any]) -> dict[str, Any]:
    """A RayJob for `cluster status`."""
    labels = found["metadata"].get("labels", {})
    job = as_job(found)
    return {
        "name": job.id,
        "run": labels.get(RUN_LABEL),
        "job": labels.get(JOB_LABEL),
        "status": job.status,
        "message": job.message,
    }
