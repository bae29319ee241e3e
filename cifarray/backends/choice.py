"""Decides which backend a cluster profile or a run's record means; no other module does."""

from collections.abc import Mapping
from typing import Any

from cifarray.backends.base import Backend
from cifarray.backends.kubernetes.backend import KIND, MODES, open_cluster
from cifarray.backends.local.backend import LocalBackend
from cifarray.backends.ray_jobs.backend import RayJobsBackend
from cifarray.spec.profile import Profile


def backend_of(profile: Profile) -> Backend:
    """The backend of a profile; nothing is started or reached yet.

    Raises: JobError for an address that none could use.
    """
    if profile.kubernetes is not None:
        return open_cluster(profile)
    if profile.address or profile.dashboard:
        return RayJobsBackend(profile)
    return LocalBackend(profile)


def recorded_class(record: Mapping[str, Any]) -> type[Backend]:
    """The backend that wrote a run's record of its cluster."""
    if record.get("kind") == KIND:
        return MODES["rayjob"]
    return LocalBackend if record.get("own") else RayJobsBackend
