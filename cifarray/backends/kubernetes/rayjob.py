"""A run as a RayJob with a Ray cluster of its own, and a RayJob in the words of the Jobs API."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from cifarray.backends.base import SubmittedJob
from cifarray.backends.environment import driver_command, run_environment
from cifarray.backends.kubernetes.pods import (
    HEAD_PORTS,
    Gang,
    head_group,
    named_gang,
    of_kubernetes,
    worker_group,
)
from cifarray.spec.load import dump_yaml, to_yaml
from cifarray.spec.run import OWN_JOBS_VARIABLE, REQUEST_VARIABLE, RunRequest

RAY_VERSION = "2.60.0"
NAME_LENGTH = 47
"""KubeRay adds to a RayJob's name and wants what it makes of it to be a label."""
LABEL_LENGTH = 63
RUN_LABEL, JOB_LABEL, SUBMISSION_LABEL = "cifarray/run", "cifarray/job", "cifarray/submission"
OURS = {"app.kubernetes.io/part-of": "cifarray"}


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
            # Both begin anew with every retry: the profile's figures are totals.
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
    """`<run>-<submission>`, a DNS-1035 label; what has to be cut is made unique by a digest."""
    name = f"{run_id}-{submission}"
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: NAME_LENGTH - 9].rstrip('-')}-{digest}"


def label_value(text: str) -> str:
    """Text as a label's value may be: letters, digits, '-', '_', '.'; at most 63 characters."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LABEL_LENGTH]
    return cleaned.strip("-._")


STATES = {"SUCCEEDED": "SUCCEEDED", "STOPPED": "STOPPED", "FAILED": "FAILED"}
WAITING = ("", "Initializing", "Waiting", "Suspended", "Retrying")
ENDED = ("Complete", "Failed", "ValidationFailed")


def as_job(found: Mapping[str, Any]) -> SubmittedJob:
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
    return SubmittedJob(str(found["metadata"]["name"]), state, told, None)


def is_going(found: Mapping[str, Any]) -> bool:
    """Whether its end has been asked for: KubeRay then begins nothing more with it."""
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
    """One line of a message: Ray puts the end of a failed job's log behind its first one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].partition(', last available logs')[0]}: {lines[-1]}"
