"""What a run's job waits for, by objects as KubeRay and Kubernetes leave them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.jobs import (
    SharedRayJobs,
    explain_rayjob,
    why_rayjob_waits,
    why_unanswered,
)
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.backends.kubernetes.test_waiting import put_node

NAMESPACE = "/api/v1/namespaces/cifarray"
EVERYWHERE = "/api/v1/pods"
HEAD = {"ray.io/node-type": "head"}
UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
}


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rayjob(stage: str = "Initializing", age_s: float = 5.0, **status: Any) -> dict[str, Any]:
    """The RayJob of a run, whose cluster is a-run-1-xyz."""
    known = {"jobDeploymentStatus": stage, "rayClusterName": "a-run-1-xyz", **status}
    metadata = {"name": "a-run-1", "labels": {"cifarray/run": "a-run"}}
    return {"metadata": {**metadata, "creationTimestamp": ago(age_s)}, "status": known}


def put_pod(
    api: ApiServer,
    name: str = "a-head",
    ready_s: float | None = 5.0,
    cluster: str = "a-run-1-xyz",
    condition: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A head pod that has been ready for some seconds, is starting, or has another condition."""
    state = "False" if ready_s is None else "True"
    conditions = [
        {"type": kind, "status": state, "lastTransitionTime": ago(ready_s or 0.0)}
        for kind in ("Ready", "ContainersReady")
    ]
    labels = {"ray.io/cluster": cluster, "cifarray/run": "a-run", **HEAD}
    return api.put(
        f"{NAMESPACE}/pods/{name}",
        metadata={"labels": labels},
        spec={"nodeName": "node-7"},
        status={"conditions": [condition] if condition else conditions},
    )


def put_operator(api: ApiServer, ready: str) -> None:
    api.put(
        f"{EVERYWHERE}/kuberay-operator-1",
        metadata={
            "labels": {"app.kubernetes.io/component": "kuberay-operator"},
            "namespace": "kuberay",
        },
        spec={"containers": [{"image": "kuberay/operator:v1.7.0"}]},
        status={"conditions": [{"type": "Ready", "status": ready}]},
    )


def test_pods_that_start_are_nobodys_fault(api: ApiServer, kube: Kube):
    put_pod(api, ready_s=None)
    assert why_rayjob_waits(kube, rayjob(age_s=3000)) == "its pods are starting"


def test_a_rayjob_that_has_just_begun_is_given_time(api: ApiServer, kube: Kube):
    assert why_rayjob_waits(kube, rayjob(age_s=5)) == "its pods are starting"
    put_pod(api, ready_s=5)
    assert why_rayjob_waits(kube, rayjob(age_s=3000)) == "its pods are starting"


@pytest.mark.parametrize(
    ("ready", "words"),
    [
        ("True", "see the log of its pod kuberay/kuberay-operator-1"),
        ("False", "its pod kuberay/kuberay-operator-1 is not ready"),
        (None, "no pod of it exists in any namespace"),
    ],
)
def test_an_operator_that_does_nothing_for_a_minute_is_named(
    api: ApiServer, kube: Kube, ready: str | None, words: str
):
    if ready:
        put_operator(api, ready)
    said = why_rayjob_waits(kube, rayjob(age_s=300))
    assert said == f"it has no head pod, and KubeRay's operator does not create one; {words}"
    put_pod(api, ready_s=200)
    said = why_rayjob_waits(kube, rayjob(age_s=300))
    assert said.startswith("all its pods are ready, and KubeRay's operator does not create one")


def test_whoever_may_not_look_for_the_operator_is_asked_whether_it_runs(api: ApiServer, kube: Kube):
    api.forbid(f"GET {EVERYWHERE}")
    assert why_rayjob_waits(kube, rayjob(age_s=300)).endswith("; is it running?")
    fresh = rayjob() | {"status": {}}
    said = why_rayjob_waits(kube, fresh)
    assert said == "KubeRay's operator has not started it; is it running?"


def test_a_running_rayjob_with_all_its_pods_waits_for_nothing(api: ApiServer, kube: Kube):
    put_pod(api, ready_s=3000)
    assert why_rayjob_waits(kube, rayjob("Running", age_s=3000)) == ""


def test_a_running_rayjob_without_a_head_waits_for_the_operator(api: ApiServer, kube: Kube):
    said = why_rayjob_waits(kube, rayjob("Running", age_s=3000))
    assert said.startswith("it has no head pod, and KubeRay's operator does not create one")


def test_a_suspended_rayjob_waits_in_its_queue(kube: Kube):
    assert "queue" in why_rayjob_waits(kube, rayjob("Suspended", age_s=3000))


def test_a_pod_of_an_older_rayjob_of_the_run_is_not_what_this_one_waits_for(
    api: ApiServer, kube: Kube
):
    stuck = put_pod(api, "older-head", cluster="a-run-0-abc")
    stuck["metadata"]["deletionTimestamp"] = ago(600)
    put_pod(api, condition=UNSCHEDULED)
    assert "nvidia.com/gpu" in why_rayjob_waits(kube, rayjob())
    assert explain_rayjob(kube, rayjob(rayClusterName="")) == ""


def test_a_job_on_the_long_lived_cluster_waits_for_pods_and_not_for_other_jobs(
    api: ApiServer, kube: Kube
):
    put_pod(api, "a-worker", cluster="cifarray", condition=UNSCHEDULED)
    jobs = SharedRayJobs(kube, "cifarray", "http://127.0.0.1:9", None)
    assert "nvidia.com/gpu" in jobs.why_pending("a-run-1")


def test_a_head_that_does_not_answer_is_named_with_its_node(api: ApiServer, kube: Kube):
    assert why_unanswered(kube, "cifarray").startswith("RayCluster cifarray has no head pod")
    put_pod(api, cluster="cifarray")
    named = "head pod a-head of RayCluster cifarray, on node node-7, "
    assert why_unanswered(kube, "cifarray") == f"{named}does not answer"
    put_pod(api, cluster="cifarray", ready_s=None)
    assert why_unanswered(kube, "cifarray") == f"{named}is not ready"
    put_node(api, "Unknown")
    gone = put_pod(api, cluster="cifarray")
    gone["status"]["conditions"][0]["status"] = "False"  # as the node controller leaves it
    assert why_unanswered(kube, "cifarray").startswith("node node-7 of pod a-head does not answer")
