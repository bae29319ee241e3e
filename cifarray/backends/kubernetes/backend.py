"""A Kubernetes cluster as submit, logs, stop and status use it, in both of its modes."""

import atexit
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cifarray.backends.kubernetes.access import (
    HEAD,
    dashboard_command,
    forwarded,
    head_labels,
    ready_pod,
    token,
)
from cifarray.backends.kubernetes.client import Kube, has_context
from cifarray.backends.kubernetes.jobs import (
    RayJobRuns,
    SharedRayJobs,
    explain_ray_cluster,
    explain_rayjob,
    why_silent,
)
from cifarray.backends.kubernetes.pods import HEAD_PORTS, of_kubernetes
from cifarray.backends.kubernetes.rayjob import (
    RUN_LABEL,
    rayjob_name,
    run_label,
)
from cifarray.backends.ray_jobs.client import PATIENCE_S, RayJobs
from cifarray.errors import JobError
from cifarray.spec.profile import KubernetesSpec, Profile
from cifarray.spec.run import RunRequest


def cluster_record(
    profile: str,
    spec: KubernetesSpec,
    context: str | None,
    dashboard: str,
    job_id: str | None,
) -> dict[str, Any]:
    """The record of a job; no secret. A driver does not know by which context people come."""
    section = spec.model_dump(mode="json", exclude_defaults=True, exclude={"context"})
    return {
        "profile": profile,
        "kind": "kubernetes",
        "address": f"namespace {spec.namespace}" + (f" of {context}" if context else ""),
        "dashboard": dashboard,
        "job_id": job_id,
        "own": False,
        "kubernetes": section | ({"context": context} if context else {}),
    }


def applied_record(asked: RunRequest) -> dict[str, Any]:
    """The record of a run whose RayJob somebody applied: `submit --dry-run` prints its first."""
    profile, spec = asked.profile, of_kubernetes(asked.profile)
    job_id = rayjob_name(asked.run_id, 1)
    return cluster_record(
        profile.name, spec, spec.context, dashboard_of_run(spec, asked.run_id), job_id
    )


def dashboard_of_run(spec: KubernetesSpec, run_id: str) -> str:
    """How a person sees the dashboard of a run's own cluster."""
    return dashboard_command(spec.namespace, {RUN_LABEL: run_label(run_id), **HEAD})


T = TypeVar("T")
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
    given_dashboard: str | None = None
    """Where the long-lived RayCluster's Jobs API answers; None: behind a port-forward."""
    sure: bool = True
    """Whether it is certainly the one that a run recorded."""
    own: bool = field(default=False, init=False)
    is_here: bool = field(default=False, init=False)
    """Its pods read none of this machine's files."""

    @property
    def dashboard(self) -> str:
        """Ray's dashboard: its address, or how to see it."""
        command = dashboard_command(self.kube.namespace, head_labels(self.spec.ray_cluster))
        return self.given_dashboard or command

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return f"namespace {self.kube.namespace} of {self.kube.context}"

    @property
    def shared(self) -> bool:
        """Whether runs go to the long-lived RayCluster."""
        return self.spec.mode == "ray-jobs"

    def jobs(self, patience_s: float = PATIENCE_S) -> RayJobs | RayJobRuns:
        """Its jobs: those of the long-lived cluster, or the RayJobs of the namespace."""
        if not self.shared:
            return self.own_jobs()
        secret = token(self.kube, self.spec)
        name = self.spec.ray_cluster
        return SharedRayJobs(self.kube, name, self._jobs_address(), secret, patience_s)

    def explain(self, job_id: str) -> str:
        """What the pods of a job wait for or died of, in words; empty if nothing is known."""
        if self.shared:
            return explain_ray_cluster(self.kube, self.spec.ray_cluster)
        found = self.kube.get("RayJob", job_id)
        return "" if found is None else explain_rayjob(self.kube, found)

    def why_silent(self) -> str:
        """Why nobody answers for the jobs, where that is not the API server's own silence."""
        return why_silent(self.kube, self.spec.ray_cluster) if self.shared else ""

    def own_jobs(self) -> RayJobRuns:
        """The RayJobs of its namespace, which may be there in either mode."""
        return RayJobRuns(self.kube, self.spec, self.sure)

    def _jobs_address(self) -> str:
        if self.given_dashboard:
            return self.given_dashboard
        labels = head_labels(self.spec.ray_cluster)
        find = partial(ready_pod, self.kube, labels, f"RayCluster {self.spec.ray_cluster}")
        port = for_this_command(forwarded(self.kube, find, HEAD_PORTS["dashboard"]))
        return f"http://127.0.0.1:{port}"

    def is_gone(self) -> bool:
        """Nothing is certain of a cluster that others run."""
        return False

    def record(self, job_id: str | None) -> dict[str, Any]:
        """What a run's status says of it; no secret."""
        return cluster_record(self.profile, self.spec, self.kube.context, self.dashboard, job_id)


def open_cluster(profile: Profile) -> KubernetesCluster:
    """The cluster of a profile of kind kubernetes. Raises: ClusterError, JobError."""
    spec = of_kubernetes(profile)
    if profile.dashboard and not _is_address(profile.dashboard):
        raise JobError(
            f"cluster profile {profile.name}: dashboard {profile.dashboard} is no http://host:port"
        )
    if profile.dashboard and spec.mode == "rayjob":
        raise JobError(
            f"cluster profile {profile.name} gives a dashboard, and in mode rayjob each run has "
            "one of its own; leave it out, or set kubernetes.mode to ray-jobs"
        )
    return KubernetesCluster(profile.name, spec, Kube.open(spec), profile.dashboard)


def recorded_kubernetes(
    record: Mapping[str, Any], own: Profile, named: bool, patience_s: float = PATIENCE_S
) -> KubernetesCluster:
    """The cluster of the user's own profile that names what a run's status names.

    Contexts have other names in other people's kubeconfigs: with a recorded one that this lacks,
    and no profile that the command has `named`, it may be another cluster. Raises: ClusterError.
    """
    context = (record.get("kubernetes") or {}).get("context")
    spec, sure = of_kubernetes(own), named or context is None or has_context(context)
    given = own.dashboard if _is_address(str(record.get("dashboard"))) else None
    return KubernetesCluster(own.name, spec, Kube.open(spec, patience_s), given, sure)


def _is_address(dashboard: str) -> bool:
    return dashboard.startswith(("http://", "https://"))
