"""NetworkPolicies that outlive their runs: one that was applied has no RayJob as its owner."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cifarray.runs.status import parse_time
from cifarray.submit.kubernetes.api import Kube, RefusedError
from cifarray.submit.kubernetes.rayjob import OURS, RUN_LABEL, run_label

FRESH_S = 600.0
"""`kubectl apply` makes a run's policy before its RayJob."""


def remove_policies_of(kube: Kube, run_id: str) -> list[str]:
    """Delete the policies of a run whose RayJob is gone or going; their names."""
    return _remove(kube, {RUN_LABEL: run_label(run_id)}, fresh_s=0.0)


def remove_left_policies(kube: Kube) -> list[str]:
    """Delete the policies of all runs whose RayJobs are gone; their names."""
    return _remove(kube, OURS, FRESH_S)


def _remove(kube: Kube, labels: Mapping[str, str], fresh_s: float) -> list[str]:
    """Kubernetes itself removes those that a RayJob owns; who may not delete leaves the others."""
    until = datetime.now(UTC) - timedelta(seconds=fresh_s)
    try:
        # The policies first: one that is listed here was made after its RayJob, or is applied.
        policies = [
            policy["metadata"]
            for policy in kube.list("NetworkPolicy", labels)
            if RUN_LABEL in policy["metadata"].get("labels", {})
            and not policy["metadata"].get("ownerReferences")
        ]
        live = {
            each["metadata"]["name"]
            for each in (kube.list("RayJob", labels) if policies else ())
            if not each["metadata"].get("deletionTimestamp")
        }
        left = [
            str(policy["name"])
            for policy in policies
            if policy["name"] not in live and _made(policy) <= until
        ]
        return [name for name in left if kube.delete("NetworkPolicy", name)]
    except RefusedError as error:
        if error.code != 403:
            raise
        return []


def _made(metadata: Mapping[str, str]) -> datetime:
    return parse_time(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC)
