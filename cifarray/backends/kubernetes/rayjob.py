"""A run as a RayJob: built, created with what it needs, read, ended, and cleaned up."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from cifarray.backends.base import SubmittedJob
from cifarray.backends.environment import driver_command, run_environment
from cifarray.backends.kubernetes.client import AlreadyExistsError, Kube, RefusedError
from cifarray.backends.kubernetes.manifests import Manifest
from cifarray.backends.kubernetes.pods import (
    HEAD_PORTS,
    Gang,
    find_gang,
    head_group,
    named_gang,
    of_kubernetes,
    worker_group,
)
from cifarray.digests import content_sha256
from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.runs.status import parse_time
from cifarray.spec.load import dump_yaml, to_yaml
from cifarray.spec.profile import Profile
from cifarray.spec.run import OWN_JOBS_VARIABLE, REQUEST_VARIABLE, RunRequest
from cifarray.timers import Deadline

RAY_VERSION = "2.60.0"
NAME_LENGTH = 47
"""KubeRay appends to a RayJob's name, and the result must be a valid label."""
LABEL_LENGTH = 63
RUN_LABEL, JOB_LABEL, SUBMISSION_LABEL = "cifarray/run", "cifarray/job", "cifarray/submission"
OURS = {"app.kubernetes.io/part-of": "cifarray"}
JOB_STATES = {"SUCCEEDED": "SUCCEEDED", "STOPPED": "STOPPED", "FAILED": "FAILED"}
WAITING_STAGES = ("", "Initializing", "Waiting", "Suspended", "Retrying")
ENDED_STAGES = ("Complete", "Failed", "ValidationFailed")
COMPANIONS = ("NetworkPolicy", "PodGroup")
"""Kinds that are made for a RayJob, before it."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
FRESH_S = 600.0
"""For this long after, the RayJob may still be about to be created."""
GOING_S, POLL_S = 15.0, 0.5
"""How long a deleted RayJob's cluster may take to notice, and how often to check."""


def run_objects(
    request: RunRequest, submission: int, gang: Gang | None = None
) -> list[dict[str, Any]]:
    """All objects of a run's submission in the order of their creation: the RayJob comes last."""
    gang = gang or named_gang(of_kubernetes(request.profile))
    job = rayjob(request, submission, gang)
    group = gang.group(job, request.world_size + 1)
    return [run_policy(request, submission), *([group] if group else []), job]


def rayjob(request: RunRequest, submission: int, gang: Gang | None = None) -> dict[str, Any]:
    """The RayJob of a run's submission, counted from 1."""
    spec = of_kubernetes(request.profile)
    gang = gang or named_gang(spec)
    name, labels = rayjob_name(request.run_id, submission), run_labels(request)
    manifest: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "namespace": spec.namespace,
            "labels": {**labels, SUBMISSION_LABEL: str(submission), **gang.job_labels(name)},
        },
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": driver_command(request.run_id, request.profile.store),
            "runtimeEnvYAML": runtime_environment(request),
            "metadata": {"run_id": request.run_id},
            "shutdownAfterJobFinishes": True,
            "backoffLimit": spec.retries,
            # Both restart with every retry: the profile's figures are totals.
            "preRunningDeadlineSeconds": spec.cluster_wait_s,
            "activeDeadlineSeconds": max(1, spec.max_run_s // (spec.retries + 1)),
            "rayClusterSpec": ray_cluster_spec(request, labels | gang.pod_labels(name)),
        },
    }
    if gang.suspended:
        manifest["spec"]["suspend"] = True
    return manifest


def run_policy(request: RunRequest, submission: int) -> dict[str, Any]:
    """The NetworkPolicy that lets the pods of one run, and no others, speak to each other."""
    pods = {"podSelector": {"matchLabels": {RUN_LABEL: run_label(request.run_id)}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": rayjob_name(request.run_id, submission),
            "namespace": of_kubernetes(request.profile).namespace,
            "labels": run_labels(request),
        },
        "spec": {
            **pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [pods]}],
            "egress": [{"to": [pods]}],
        },
    }


def ray_cluster_spec(request: RunRequest, labels: dict[str, str]) -> dict[str, Any]:
    """A head and as many worker pods as the run has workers."""
    profile, workers = request.profile, request.world_size
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": of_kubernetes(profile).store_secret},
        "headGroupSpec": head_group(profile, labels),
        "workerGroupSpecs": [worker_group(profile, labels, "workers", workers, workers)],
    }


def runtime_environment(request: RunRequest) -> str:
    """What the driver and its workers find in their environment, as YAML; no secret.

    The resolved job is in it: HTTPMode carries no file.
    """
    variables = {
        **run_environment(request.profile),
        OWN_JOBS_VARIABLE: f"http://127.0.0.1:{HEAD_PORTS['dashboard']}",
        REQUEST_VARIABLE: to_yaml(request),
    }
    return dump_yaml({"env_vars": variables})


def run_labels(request: RunRequest) -> dict[str, str]:
    """Labels of a run's RayJob and of its pods."""
    return {
        **OURS,
        RUN_LABEL: run_label(request.run_id),
        JOB_LABEL: label_value(request.job.name),
    }


def run_label(run_id: str) -> str:
    """A run's id as the value of a label; run ids fit."""
    return label_value(run_id)


def rayjob_name(run_id: str, submission: int) -> str:
    """`<run>-<submission>`, a DNS-1035 label; a digest makes a shortened name unique."""
    name = f"{run_id}-{submission}"
    if len(name) <= NAME_LENGTH:
        return name
    digest = content_sha256(name)[:8]
    return f"{name[: NAME_LENGTH - 9].rstrip('-')}-{digest}"


def label_value(text: str) -> str:
    """Text as a label's value may be: letters, digits, '-', '_', '.'; at most 63 characters."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LABEL_LENGTH]
    return cleaned.strip("-._")


def as_job(found: Mapping[str, Any]) -> SubmittedJob:
    """A RayJob object in the terms of the Jobs API."""
    status = found.get("status") or {}
    stage, message = status.get("jobDeploymentStatus", ""), _told(str(status.get("message") or ""))
    if stage in ENDED_STAGES:
        state = JOB_STATES.get(status.get("jobStatus", ""), "FAILED")
        if stage != "Complete" and state == "SUCCEEDED":
            state = "FAILED"
    elif stage in WAITING_STAGES:
        state = "PENDING"
    else:
        state = "RUNNING"
    reason = status.get("reason")
    told = f"{reason}: {message}" if reason and message else str(reason or message)
    return SubmittedJob(str(found["metadata"]["name"]), state, told, None)


def is_going(found: Mapping[str, Any]) -> bool:
    """Whether it is being deleted: KubeRay then starts nothing more for it."""
    return bool(found["metadata"].get("deletionTimestamp"))


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


def _told(message: str) -> str:
    """One line of a message: Ray appends the end of a failed job's log to the first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].partition(', last available logs')[0]}: {lines[-1]}"


def remove_companions_of(kube: Kube, run_id: str) -> list[str]:
    """Delete what is left of a run whose RayJob is deleted or being deleted; the names."""
    labels = {RUN_LABEL: run_label(run_id)}
    return [name for kind in COMPANIONS for name in _remove(kube, kind, labels, fresh_s=0.0)]


def remove_left_companions(kube: Kube) -> list[str]:
    """Delete what is left of all runs whose RayJobs are gone; the names."""
    return [name for kind in COMPANIONS for name in _remove(kube, kind, OURS, FRESH_S)]


def _remove(kube: Kube, kind: str, labels: Mapping[str, str], fresh_s: float) -> list[str]:
    """Kubernetes itself removes what a RayJob owns; without the right to delete, the rest stays."""
    until = kube.now() - timedelta(seconds=fresh_s)
    try:
        # List them first: an object listed here may belong to a RayJob that is about to be created.
        found = [
            each["metadata"]
            for each in kube.list(kind, labels)
            if RUN_LABEL in each["metadata"].get("labels", {})
            and not each["metadata"].get("ownerReferences")
        ]
        live = {
            each["metadata"]["name"]
            for each in (kube.list("RayJob", labels) if found else ())
            if not each["metadata"].get("deletionTimestamp")
        }
        left = [
            str(each["name"])
            for each in found
            if each["name"] not in live
            and (parse_time(each.get("creationTimestamp")) or LONG_AGO) <= until
        ]
        return [name for name in left if kube.delete(kind, name)]
    except RefusedError as error:
        if error.code not in (403, 404):  # the caller may not, or the cluster has no such kind
            raise
        return []


def next_rayjob(run: Run, kube: Kube) -> tuple[str, int]:
    """Name and number of the run's next RayJob. Raises: ClusterError."""
    earlier = kube.list("RayJob", {RUN_LABEL: run_label(run.id)})
    numbers = [int(each["metadata"]["labels"].get(SUBMISSION_LABEL, 0)) for each in earlier]
    submission = max([0, *numbers, run.status().attempts]) + 1
    return rayjob_name(run.id, submission), submission


def end_earlier(run: Run, kube: Kube, patience_s: float = GOING_S) -> None:
    """Delete the run's RayJobs that have not ended: their retries would conflict.

    Raises: ClusterError if one cannot be deleted.
    """
    labels = {RUN_LABEL: run_label(run.id)}
    for job in _live(kube, labels):
        kube.delete("RayJob", str(job["metadata"]["name"]))
    for _ in Deadline(patience_s).looks(POLL_S):
        if not (left := _live(kube, labels)):
            return
    # A RayJob that is being deleted starts nothing more, though its pods may take long to end.
    if staying := [str(job["metadata"]["name"]) for job in left if not is_going(job)]:
        raise ClusterError(
            f"RayJob {staying[0]} of run {run.id} was deleted but still exists; remove it with "
            f"`kubectl -n {kube.namespace} delete rayjob {staying[0]}`"
        )


def _live(kube: Kube, labels: dict[str, str]) -> list[dict[str, Any]]:
    return [each for each in kube.list("RayJob", labels) if not as_job(each).ended]


def launch_rayjob(run: Run, profile: Profile, kube: Kube, submission: int) -> None:
    """Create the RayJob and what it owns, or nothing at all. Raises: ClusterError, JobError.

    What its pods need comes first, so that no RayJob ever exists without its policy.
    """
    request = request_of(run, profile)
    *companions, job = run_objects(request, submission, find_gang(kube, of_kubernetes(profile)))
    made: list[Manifest] = []
    try:
        for each in companions:
            made += _create_or_keep(kube, each)
        owner = _create_rayjob(kube, job)
    except (RefusedError, AlreadyExistsError) as error:
        if isinstance(error, AlreadyExistsError) or error.code < 500:
            _take_back(kube, made, job)
        raise  # otherwise the RayJob may still appear, and needs its policy
    try:
        for each in companions:
            _set_owner(kube, each, owner)
    except BaseException:
        with suppress(ClusterError):
            kube.delete("RayJob", owner["name"])
        raise


def _take_back(kube: Kube, made: list[Manifest], job: Manifest) -> None:
    """Remove what was created for a RayJob, unless another RayJob of that name exists."""
    with suppress(ClusterError):
        if kube.get("RayJob", job["metadata"]["name"]) is None:
            for each in made:
                kube.delete(each["kind"], each["metadata"]["name"])


def _create_or_keep(kube: Kube, companion: Manifest) -> list[Manifest]:
    """Make an object, unless the run has it already: `kubectl apply` of a dry run makes it too."""
    try:
        return [kube.create(companion)]
    except AlreadyExistsError:
        found = kube.get(companion["kind"], companion["metadata"]["name"])
        if found is None:  # it was deleted just now, with an earlier RayJob of the same name
            return [kube.create(companion)]
        run = (found["metadata"].get("labels") or {}).get(RUN_LABEL)
        if run != companion["metadata"]["labels"][RUN_LABEL] or found["spec"] != companion["spec"]:
            raise
        return []


def _create_rayjob(kube: Kube, job: Manifest) -> Manifest:
    """Make the RayJob; what names it as an owner."""
    try:
        made = kube.create(job)
    except RefusedError as error:
        if error.code == 404:
            sentence = f"{kube.context} has no RayJob CRD; install KubeRay's operator 1.7 or newer"
            raise RefusedError(sentence, error.code, {}) from error
        raise
    named = {name: made["metadata"][name] for name in ("name", "uid")}
    return {"apiVersion": job["apiVersion"], "kind": job["kind"], **named}


def _set_owner(kube: Kube, companion: Manifest, owner: Manifest) -> None:
    """Make the RayJob the owner of an object, which is created again if it was deleted."""
    owned = {"ownerReferences": [owner]}
    try:
        found = kube.patch(companion["kind"], companion["metadata"]["name"], {"metadata": owned})
    except ClusterError:
        return  # it is there without an owner: a later submission removes it after its RayJob
    if found is None:
        kube.create({**companion, "metadata": companion["metadata"] | owned})


def request_of(run: Run, profile: Profile) -> RunRequest:
    """A recorded run as it was requested, on the user's own profile."""
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
    """Delete our RayJobs that ended longer ago, and leftover policies; their names."""
    moment = (kube.now() - timedelta(seconds=keep_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = [found for found in kube.list("RayJob", OURS) if ended_before(found, moment)]
    names = [str(found["metadata"]["name"]) for found in old]
    for name in names:
        kube.delete("RayJob", name)
    return names + remove_left_companions(kube)
