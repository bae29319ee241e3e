"""What commands do about a run's RayJob beyond the run's record: find it, explain it, end it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifarray.cli import output
from cifarray.errors import ClusterError, InputError

if TYPE_CHECKING:
    from cifarray.backends.choice import Cluster
    from cifarray.backends.kubernetes.backend import KubernetesCluster
    from cifarray.backends.ray_jobs.client import RayJob
    from cifarray.runs import Run, Status
    from cifarray.spec.profile import Profile


@dataclass(frozen=True)
class Unrecorded:
    """A run that the store does not know: its RayJob was applied, and its driver has not begun."""

    run_id: str
    job: "RayJob"
    cluster: "KubernetesCluster"

    @property
    def state(self) -> str:
        """As of a recorded run."""
        return "failed" if self.job.ended else "pending"

    @property
    def reason(self) -> str:
        """What it waits for, or why it never began."""
        if self.job.ended:
            return self.job.message
        return self.cluster.own_jobs().why_pending(self.job.id)


def find_unrecorded(run_id: str, named: "Profile | None") -> Unrecorded | None:
    """The run of this id whose RayJob waits on the cluster that the command names."""
    from cifarray.backends.kubernetes.backend import open_cluster
    from cifarray.runs.ids import is_run_id

    if named is None or named.kind != "kubernetes" or not is_run_id(run_id):
        return None
    cluster = open_cluster(named)
    job = cluster.own_jobs().of_run(run_id)
    if job is None or job.status == "SUCCEEDED":  # its driver did begin: the run was deleted since
        return None
    return Unrecorded(run_id, job, cluster)


def stop_unrecorded(waiting: Unrecorded) -> None:
    """Delete the RayJob and the policy that were applied. Raises: InputError if it has ended."""
    from cifarray.backends.kubernetes.launching import remove_companions_of

    if waiting.job.ended:
        raise InputError(
            f"RayJob {waiting.job.id} of run {waiting.run_id} ended before its driver began"
            f" ({waiting.job.message}): nothing to stop"
        )
    waiting.cluster.own_jobs().stop(waiting.job.id)
    remove_companions_of(waiting.cluster.kube, waiting.run_id)


def stop_recorded(run: "Run", cluster: "KubernetesCluster", job_id: str) -> "Status":
    """Write the end first: Ray leaves a driver whose pod ends no time for it."""
    run.mark_stopped("stopped by `cifarray stop`")
    cluster.jobs(patience_s=10.0).stop(job_id)
    _remove_policies(run, cluster)
    return run.status()


def stop_what_lives_on(run: "Run", current: "Status", named: "Profile | None") -> str:
    """End the job of a run that has ended, as after a `stop` that did not get so far; its id.

    Raises: InputError if it has ended too, ClusterError if that cannot be asked.
    """
    from cifarray.backends.choice import recorded_cluster
    from cifarray.backends.kubernetes.backend import KubernetesCluster

    ended = f"run {run.id} has ended already ({current.state})"
    job_id = (current.cluster or {}).get("job_id")
    if (current.cluster or {}).get("kind") != "kubernetes" or not job_id:
        raise InputError(f"{ended}: nothing to stop")
    try:
        cluster = recorded_cluster(run, current.cluster, named)
        assert isinstance(cluster, KubernetesCluster)
        jobs = cluster.jobs(patience_s=10.0)
        job = jobs.find(job_id)
        lives = job is not None and not job.ended
        if lives:
            jobs.stop(job_id)
        _remove_policies(run, cluster)
    except ClusterError as error:
        raise ClusterError(f"{ended}, and whether its job has is not known: {error}") from error
    if not lives:
        raise InputError(f"{ended}: nothing to stop")
    return str(job_id)


def clear_away(
    run: "Run", status: "Status", cluster: "Cluster | KubernetesCluster | None", job_id: str | None
) -> None:
    """Of a followed run that has ended, delete what would only cost: retries, a policy."""
    from cifarray.backends.kubernetes.backend import KubernetesCluster

    if not isinstance(cluster, KubernetesCluster) or cluster.shared or job_id is None:
        return
    try:
        if status.state != "finished" and cluster.own_jobs().stop_if_live(job_id):
            output.say(f"deleted RayJob {job_id}: KubeRay would have tried it again in vain")
        _remove_policies(run, cluster)
    except ClusterError as error:
        output.warn(f"RayJob {job_id} may live on: {error}; `cifarray stop {run.id}` ends it")


def _remove_policies(run: "Run", cluster: "KubernetesCluster") -> None:
    from cifarray.backends.kubernetes.launching import remove_companions_of

    if not cluster.shared:
        remove_companions_of(cluster.kube, run.id)
