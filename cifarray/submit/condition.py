"""How a run really is: its record, and what its cluster knows beyond that."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cifarray.errors import ClusterError, UntrustedError
from cifarray.runs import Run, RunSummary, Status, shown_state
from cifarray.spec.profile import Profile
from cifarray.submit.cluster import recorded_cluster
from cifarray.submit.jobs_api import RayJob, RayJobs
from cifarray.submit.kubernetes.cluster import KubernetesCluster
from cifarray.submit.kubernetes.rayjob_runs import RayJobRuns
from cifarray.submit.news import seconds_since, waits_for

PATIENCE_S = 5.0
"""Whoever looks at a run shall not wait for long for a cluster that is away."""


@dataclass(frozen=True)
class Condition:
    """A run's state for people, and one sentence on what it waits for or died of."""

    state: str
    reason: str = ""


def condition(run: Run, status: Status, named: Profile | None = None) -> Condition:
    """The run's condition; its record alone decides where no Kubernetes cluster can be asked.

    A profile that the command names says how the run's cluster is reached from here.
    """
    state, waited_for, record = shown_state(status), waits_for(status), status.cluster or {}
    if not (_is_open(status) or (state == "running" and waited_for and _on_kubernetes(record))):
        return Condition(state)
    job_id = str(record.get("job_id"))
    try:
        cluster = _cluster_of(run, record, named)
        if state == "running":
            return Condition(state, cluster.explain(job_id) or f"it waits for {waited_for}")
        jobs = cluster.jobs(PATIENCE_S)
        try:
            job = jobs.find(job_id)
        except ClusterError as error:
            return Condition(state, cluster.why_silent() or str(error))
        return _of_job(run, status, cluster, job, _cause(cluster, jobs, job))
    except ClusterError as error:
        return Condition(state, str(error))


def conditions(summaries: Iterable[RunSummary], named: Profile | None = None) -> list[Condition]:
    """The conditions of many runs: each cluster is asked once, and for no reason of waiting."""
    asked: dict[str, _Known | ClusterError] = {}
    return [_at_a_glance(summary.run, summary.status, named, asked) for summary in summaries]


@dataclass(frozen=True)
class _Known:
    """A cluster and all jobs that it knows, by id."""

    cluster: KubernetesCluster
    jobs: Mapping[str, RayJob]


def _at_a_glance(
    run: Run, status: Status, named: Profile | None, asked: dict[str, _Known | ClusterError]
) -> Condition:
    record = status.cluster or {}
    if not _is_open(status):
        return Condition(shown_state(status))
    section = record.get("kubernetes") or {}
    place = str([section.get(key) for key in ("context", "namespace", "mode", "ray_cluster")])
    place += str(record.get("dashboard")) if section.get("mode") == "ray-jobs" else ""
    if place not in asked:
        try:
            cluster = _cluster_of(run, record, named)
            jobs = cluster.jobs(PATIENCE_S).all_jobs()
            asked[place] = _Known(cluster, {job.id: job for job in jobs})
        except UntrustedError as error:  # says nothing of other runs of that place
            return Condition(shown_state(status), str(error))
        except ClusterError as error:
            asked[place] = error
    known = asked[place]
    if isinstance(known, ClusterError):
        return Condition(shown_state(status), str(known))
    job = known.jobs.get(str(record.get("job_id")))
    if job is None and not known.cluster.sure:
        return Condition(shown_state(status))
    return _of_job(run, status, known.cluster, job, "")


def _cluster_of(run: Run, record: Mapping[str, Any], named: Profile | None) -> KubernetesCluster:
    cluster = recorded_cluster(run, record, named, PATIENCE_S)
    assert isinstance(cluster, KubernetesCluster)
    return cluster


def _on_kubernetes(record: Mapping[str, Any]) -> bool:
    return record.get("kind") == "kubernetes"


def _is_open(status: Status) -> bool:
    """Whether the record leaves open how the run is, and a Kubernetes cluster may know."""
    return _on_kubernetes(status.cluster or {}) and shown_state(status) in ("pending", "lost")


def _cause(cluster: KubernetesCluster, jobs: RayJobs | RayJobRuns, job: RayJob | None) -> str:
    if job is None:
        return ""
    if not job.ended:
        return jobs.why_pending(job.id)
    return "" if cluster.shared else cluster.explain(job.id)  # its pods are other runs' too


def _of_job(
    run: Run, status: Status, cluster: KubernetesCluster, job: RayJob | None, cause: str
) -> Condition:
    """Lost is what is silent and what nothing will bring back."""
    job_id = str((status.cluster or {}).get("job_id"))
    because = f": {cause}" if cause else ""
    if job is None:
        what = "the RayCluster's head" if cluster.shared else "Kubernetes"
        return Condition("lost", f"{what} knows no job {job_id}; `cifarray resume {run.id}`")
    if job.ended:
        told = f" ({job.message})" if job.message else ""
        return Condition(
            "lost",
            f"job {job_id} has ended{told}{because}; `cifarray resume {run.id}` goes on with it",
        )
    if status.state == "pending":
        return Condition("pending", cause)
    silent_s = seconds_since(status.heartbeat_at) if status.heartbeat_at else 0.0
    said = f"its driver has been silent for {silent_s:.0f} s, and {job_id} is still wanted"
    return Condition("running", said + because)
