"""A RayJob's stages in the words of the Jobs API."""

from collections.abc import Mapping
from typing import Any

from cifarray.backends.kubernetes.rayjob import JOB_LABEL, RUN_LABEL
from cifarray.backends.ray_jobs.client import RayJob

STATES = {"SUCCEEDED": "SUCCEEDED", "STOPPED": "STOPPED", "FAILED": "FAILED"}
WAITING = ("", "Initializing", "Waiting", "Suspended", "Retrying")
ENDED = ("Complete", "Failed", "ValidationFailed")


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
