"""Hand a recorded run to Kubernetes as a RayJob, and clear away what has long ended."""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunRequest
from cifarray.submit.kubernetes.api import Kube, RefusedError
from cifarray.submit.kubernetes.cluster import KubernetesCluster
from cifarray.submit.kubernetes.policies import remove_left_policies
from cifarray.submit.kubernetes.rayjob import (
    OURS,
    RUN_LABEL,
    SUBMISSION_LABEL,
    rayjob,
    rayjob_name,
    run_label,
    run_policy,
)
from cifarray.submit.kubernetes.states import as_job, ended_before, is_going

GOING_S, POLL_S = 15.0, 0.5
"""How long a deleted RayJob's cluster may take to be told so, and how often to look."""


def next_rayjob(run: Run, cluster: KubernetesCluster) -> tuple[str, int]:
    """Name and number of the run's next RayJob. Raises: ClusterError."""
    earlier = cluster.kube.list("RayJob", {RUN_LABEL: run_label(run.id)})
    numbers = [int(each["metadata"]["labels"].get(SUBMISSION_LABEL, 0)) for each in earlier]
    submission = max([0, *numbers, run.status().attempts]) + 1
    return rayjob_name(run.id, submission), submission


def end_earlier(run: Run, cluster: KubernetesCluster, patience_s: float = GOING_S) -> None:
    """Delete the run's RayJobs that have not ended: a retry of theirs would fight the next one.

    Raises: ClusterError for one that does not go.
    """
    kube, labels = cluster.kube, {RUN_LABEL: run_label(run.id)}
    for job in _live(kube, labels):
        kube.delete("RayJob", str(job["metadata"]["name"]))
    deadline = time.monotonic() + patience_s
    while left := _live(kube, labels):
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    # What the operator has been told to end begins nothing more, though its pods may take long.
    if staying := [str(job["metadata"]["name"]) for job in left if not is_going(job)]:
        raise ClusterError(
            f"RayJob {staying[0]} of run {run.id} was deleted and is still there; "
            f"end it with `kubectl -n {kube.namespace} delete rayjob {staying[0]}`"
        )


def _live(kube: Kube, labels: dict[str, str]) -> list[dict[str, Any]]:
    return [each for each in kube.list("RayJob", labels) if not as_job(each).ended]


def launch_rayjob(run: Run, profile: Profile, cluster: KubernetesCluster, submission: int) -> None:
    """Create the RayJob and the policy that it owns, or leave neither. Raises: ClusterError."""
    request, kube = request_of(run, profile), cluster.kube
    try:
        made = _create(kube, rayjob(request, submission))
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
    try:
        _create(kube, policy, or_keep=True)
    except BaseException:
        with suppress(ClusterError):  # without its policy no pod of it reaches another
            kube.delete("RayJob", owner["name"])
        raise


def _create(kube: Kube, manifest: dict[str, Any], or_keep: bool = False) -> dict[str, Any]:
    """Make an object. One that is there although the answer was lost has been made.

    `or_keep` takes one that was there before, too.
    """
    try:
        return kube.create(manifest)
    except ClusterError as error:
        refused = isinstance(error, RefusedError) and error.code < 500
        taken = isinstance(error, RefusedError) and error.code == 409
        if refused and not (or_keep and taken):
            raise
        found = kube.get(manifest["kind"], manifest["metadata"]["name"])
        if found is None:
            raise
        return found


def request_of(run: Run, profile: Profile) -> RunRequest:
    """A recorded run as it was asked for, on a profile of the user's own."""
    spec = run.spec()
    return RunRequest(
        run_id=spec.run_id,
        job=spec.job,
        profile=profile,
        workers=spec.world_size,
        submitted_at=spec.submitted_at,
        versions=spec.versions,
        dataset_digest=spec.dataset_digest,
        best_of=spec.best_of,
    )


def remove_ended(kube: Kube, keep_s: int) -> list[str]:
    """Delete RayJobs of ours that ended longer ago, and policies that are left; their names."""
    moment = (datetime.now(UTC) - timedelta(seconds=keep_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = [found for found in kube.list("RayJob", OURS) if ended_before(found, moment)]
    names = [str(found["metadata"]["name"]) for found in old]
    for name in names:
        kube.delete("RayJob", name)
    return names + remove_left_policies(kube)
