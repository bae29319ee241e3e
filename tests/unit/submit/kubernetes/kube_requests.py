"""Requests of runs on Kubernetes, for tests that build their manifests."""

from typing import Any

from cifarray.spec.job import Job
from cifarray.spec.load import load_job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunRequest

STORE = {"uri": "s3://cifarray", "endpoint": "http://cifarray-store:7070"}


def profile(**fields: Any) -> Profile:
    """A profile of two CPU workers; `fields` of its kubernetes section, or of itself."""
    own = {name: fields.pop(name) for name in list(fields) if name in Profile.model_fields}
    values = {"name": "kube", "kind": "kubernetes", "store": STORE, "kubernetes": fields, **own}
    return Profile.model_validate(values)


def request(
    run_id: str = "train-digits-261123-040000-1a2b",
    job: Job | None = None,
    best_of: dict[str, Any] | None = None,
    **fields: Any,
) -> RunRequest:
    """A run of train-digits that is asked for."""
    return RunRequest(
        run_id=run_id,
        job=job or load_job("train-digits"),
        profile=profile(**fields),
        submitted_at="2026-11-23T04:00:00+00:00",
        versions={"cifarray": "0.1.0", "ray": "2.60.0"},
        best_of=best_of,
    )
