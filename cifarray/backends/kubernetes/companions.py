"""What is made for a RayJob and may outlive it: without an owner nothing else removes it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cifarray.backends.kubernetes.client import Kube, RefusedError
from cifarray.backends.kubernetes.rayjob import OURS, RUN_LABEL, run_label
from cifarray.runs.status import parse_time

COMPANIONS = ("NetworkPolicy", "PodGroup")
"""Kinds that are made for a RayJob, before it."""
FRESH_S = 600.0
"""So long after, the RayJob may still be on its way."""


def remove_companions_of(kube: Kube, run_id: str) -> list[str]:
    """Delete what is left of a run whose RayJob is gone or going; the names."""
    labels = {RUN_LABEL: run_label(run_id)}
    return [name for kind in COMPANIONS for name in _remove(kube, kind, labels, fresh_s=0.0)]


def remove_left_companions(kube: Kube) -> list[str]:
    """Delete what is left of all runs whose RayJobs are gone; the names."""
    return [name for kind in COMPANIONS for name in _remove(kube, kind, OURS, FRESH_S)]


def _remove(kube: Kube, kind: str, labels: Mapping[str, str], fresh_s: float) -> list[str]:
    """Kubernetes itself removes those that a RayJob owns; who may not delete leaves the others."""
    until = kube.now() - timedelta(seconds=fresh_s)
    try:
        # They come first: one that is listed here was made for a RayJob that may be on its way.
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
            str(each["name"]) for each in found if each["name"] not in live and _made(each) <= until
        ]
        return [name for name in left if kube.delete(kind, name)]
    except RefusedError as error:
        if error.code not in (403, 404):  # the caller may not, or the cluster has no such kind
            raise
        return []


def _made(metadata: Mapping[str, str]) -> datetime:
    return parse_time(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC)
