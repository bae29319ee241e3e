"""Hand a recorded run to Kubernetes as a RayJob, and clear away what has long ended."""

from datetime import UTC, datetime, timedelta

from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.spec.run import RunRequest
from cifarray.submit.kubernetes.api import Kube, RefusedError
from cifarray.submit.kubernetes.cluster import OURS, KubernetesCluster, ended_before
from cifarray.submit.kubernetes.rayjob import (
    RUN_LABEL,
    SUBMISSION_LABEL,
    rayjob,
    rayjob_name,
    run_label,
    run_policy,
)


def next_rayjob(run: Run, cluster: KubernetesCluster) -> tuple[str, int]:
    """Name and number of the run's next RayJob. Raises: ClusterError."""
    earlier = cluster.kube.list("RayJob", {RUN_LABEL: run_label(run.id)})
    numbers = [int(each["metadata"]["labels"].get(SUBMISSION_LABEL, 0)) for each in earlier]
    submission = max([0, *numbers, run.status().attempts]) + 1
    return rayjob_name(run.id, submission), submission


def launch_rayjob(run: Run, cluster: KubernetesCluster, submission: int) -> None:
    """Create the RayJob and the policy that it owns. Raises: ClusterError."""
    request, kube = request_of(run), cluster.kube
    manifest = rayjob(request, submission)
    try:
        made = kube.create(manifest)
    except RefusedError as error:
        if error.code == 404:
            raise ClusterError(
                f"{kube.context} knows no RayJob; install KubeRay's operator 1.7 or newer"
            ) from error
        raise
    owner = {
        "apiVersion": made["apiVersion"],
        "kind": "RayJob",
        "name": made["metadata"]["name"],
        "uid": made["metadata"]["uid"],
    }
    policy = run_policy(request, submission)
    policy["metadata"]["ownerReferences"] = [owner]
    kube.create(policy)


def request_of(run: Run) -> RunRequest:
    """A recorded run as it was asked for."""
    spec = run.spec()
    return RunRequest(
        run_id=spec.run_id,
        job=spec.job,
        profile=spec.profile,
        workers=spec.world_size,
        submitted_at=spec.submitted_at,
        versions=spec.versions,
        dataset_digest=spec.dataset_digest,
        best_of=spec.best_of,
    )


def remove_ended(kube: Kube, keep_s: int) -> list[str]:
    """Delete RayJobs of ours that ended longer ago; their names."""
    moment = (datetime.now(UTC) - timedelta(seconds=keep_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = [found for found in kube.list("RayJob", OURS) if ended_before(found, moment)]
    names = [str(found["metadata"]["name"]) for found in old]
    for name in names:
        kube.delete("RayJob", name)
    return names
