"""Runs on Kubernetes, for tests: asked for, recorded, and as RayJobs of the API server."""

from typing import Any

from cifarray.backends.kubernetes.backend import KubernetesBackend, open_cluster
from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.rayjob import OURS
from cifarray.runs import Run
from cifarray.spec.job import Job
from cifarray.spec.load import load_job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunRequest
from cifarray.store import Store
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-040000-1a2b"
JOB_ID = f"{RUN_ID}-1"
RAYJOBS = "/apis/ray.io/v1/namespaces/cifarray/rayjobs"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/cifarray/networkpolicies"
PODS = "/api/v1/namespaces/cifarray/pods"
STORE = {"uri": "s3://cifarray", "endpoint": "http://cifarray-store:7070"}


def profile(**fields: Any) -> Profile:
    """A profile of two CPU workers; `fields` of its kubernetes section, or of itself."""
    own = {name: fields.pop(name) for name in list(fields) if name in Profile.model_fields}
    values = {"name": "kube", "kind": "kubernetes", "store": STORE, "kubernetes": fields, **own}
    return Profile.model_validate(values)


def request(
    run_id: str = RUN_ID,
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


def cluster_of(kube: Kube, **fields: Any) -> KubernetesBackend:
    """The cluster of such a profile."""
    cluster = open_cluster(profile(**fields))
    cluster.kube = kube
    return cluster


def applied_record(asked: RunRequest) -> dict[str, Any]:
    """What is recorded of a run whose RayJob somebody applied."""
    return open_cluster(asked.profile).applied_record(asked)


def recorded_run(store: Store, run_id: str = RUN_ID, **fields: Any) -> Run:
    """A run of such a profile that waits in a store."""
    return Run.create(store, run_spec(run_id).model_copy(update={"profile": profile(**fields)}))


def put_rayjob(
    api: ApiServer,
    name: str = JOB_ID,
    stage: str = "Running",
    finalizers: tuple[str, ...] = (),
    **status: Any,
) -> dict[str, Any]:
    """Let the API server hold a RayJob of the run."""
    run_id, _, submission = name.rpartition("-")
    labels = {"cifarray/run": run_id, "cifarray/submission": submission, **OURS}
    return api.put(
        f"{RAYJOBS}/{name}",
        metadata={"labels": labels, "finalizers": list(finalizers)},
        status={"jobDeploymentStatus": stage, **status},
    )


def put_policy(
    api: ApiServer, name: str = JOB_ID, spec: dict[str, Any] | None = None, **metadata: Any
) -> None:
    """Let the API server hold a policy as `kubectl apply` makes it: long ago, of no owner."""
    labels = {"cifarray/run": name.rpartition("-")[0], **OURS}
    old = {"creationTimestamp": "2025-11-23T04:00:00Z", "labels": labels}
    api.put(f"{POLICIES}/{name}", metadata={**old, **metadata}, spec=spec or {})
