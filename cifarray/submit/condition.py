"""How a run really is: its record, and what its cluster knows beyond that."""

from dataclasses import dataclass

from cifarray.errors import ClusterError
from cifarray.runs import Run, Status, shown_state
from cifarray.submit.cluster import recorded_cluster
from cifarray.submit.kubernetes.cluster import KubernetesCluster
from cifarray.submit.news import seconds_since


@dataclass(frozen=True)
class Condition:
    """A run's state for people, and one sentence on what it waits for or died of."""

    state: str
    reason: str = ""


def condition(run: Run, status: Status) -> Condition:
    """The run's condition; its record alone decides where no Kubernetes cluster can be asked."""
    state = shown_state(status)
    record = status.cluster or {}
    if record.get("kind") != "kubernetes" or state not in ("pending", "lost"):
        return Condition(state)
    try:
        cluster = recorded_cluster(record)
        assert isinstance(cluster, KubernetesCluster)
        return _on_kubernetes(run, status, cluster, str(record.get("job_id")))
    except ClusterError as error:
        return Condition(state, str(error))


def _on_kubernetes(run: Run, status: Status, cluster: KubernetesCluster, job_id: str) -> Condition:
    """Lost is what is silent and what nothing will bring back."""
    jobs = cluster.jobs(patience_s=5.0)
    job = jobs.find(job_id)
    what = "the RayCluster's head" if cluster.shared else "Kubernetes"
    if job is None:
        return Condition("lost", f"{what} knows no job {job_id}; `cifarray resume {run.id}`")
    if job.ended:
        told = f" ({job.message})" if job.message else ""
        return Condition(
            "lost", f"job {job_id} has ended{told}; `cifarray resume {run.id}` goes on with it"
        )
    waits_for = jobs.why_pending(job_id)
    if status.state == "pending":
        return Condition("pending", waits_for)
    silent_s = seconds_since(status.heartbeat_at) if status.heartbeat_at else 0.0
    return Condition(
        "running",
        f"its driver has been silent for {silent_s:.0f} s, and {job_id} is still wanted"
        + (f": {waits_for}" if waits_for else ""),
    )
