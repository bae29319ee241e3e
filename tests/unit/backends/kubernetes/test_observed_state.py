"""How runs on Kubernetes really are: one at a time with their reasons, many at a glance."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.observe import ObservedState, observe, observe_all
from cifarray.runs import Run, Status, summaries
from cifarray.store import Store
from tests.loopback import answering
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.backends.kubernetes.kube_requests import profile
from tests.unit.backends.kubernetes.test_waiting import on_node, put_node
from tests.unit.runs.conftest import run_spec

RAYJOBS = "/apis/ray.io/v1/namespaces/cifarray/rayjobs"
PODS = "/api/v1/namespaces/cifarray/pods"
OURS = {"app.kubernetes.io/part-of": "cifarray"}
WAITS = "room for 2 workers of 1 GPUs; the cluster has 0 GPUs"
NOBODY = "http://127.0.0.1:9"
UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def record(
    store: Store, name: str, mode: str = "rayjob", dashboard: str = "a command", **fields: Any
) -> tuple[Run, Status]:
    """A run whose job is NAME-1, silent for long unless told otherwise."""
    run = Run.create(store, run_spec(name))
    section = {"context": "tests", "mode": mode}
    cluster = {"kind": "kubernetes", "profile": "k", "dashboard": dashboard, "kubernetes": section}
    silent = (datetime.now(UTC) - timedelta(seconds=500)).isoformat()
    values = {"state": "running", "heartbeat_at": silent, **fields}
    change = {**values, "cluster": {**cluster, "job_id": f"{name}-1"}}
    return run, run.change_status(lambda status: replace(status, **change))


def put_rayjob(api: ApiServer, name: str, stage: str, **status: Any) -> None:
    status = {"jobDeploymentStatus": stage, "rayClusterName": f"{name}-xyz", **status}
    api.put(f"{RAYJOBS}/{name}", metadata={"labels": OURS}, status=status)


def put_pod(api: ApiServer, name: str, cluster: str, pod: dict[str, Any]) -> None:
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
    api.put(f"{PODS}/{name}", **{**pod, "metadata": {"name": name, "labels": labels}})


def test_a_run_whose_rayjob_has_ended_names_the_node_that_took_its_head(
    api: ApiServer, store: Store
):
    run = record(store, "a-run")
    failed = {"jobStatus": "RUNNING", "reason": "JobStatusCheckTimeoutExceeded"}
    put_rayjob(api, "a-run-1", "Failed", **failed)
    put_node(api, "Unknown")
    put_pod(api, "a-head", "a-run-1-xyz", on_node("False"))
    found = observe(*run)
    assert found.state == "lost"
    assert "job a-run-1 has ended (JobStatusCheckTimeoutExceeded): node node-7" in found.reason
    assert "out-of-service" in found.reason
    assert "`cifarray resume a-run`" in found.reason


def test_a_run_whose_rayjob_is_gone_is_lost(api: ApiServer, store: Store):
    found = observe(*record(store, "a-run"))
    assert found == ObservedState(
        "lost", "Kubernetes has no job a-run-1; `cifarray resume a-run` continues it"
    )


def test_a_queued_run_whose_rayjob_is_not_there_is_pending(api: ApiServer, store: Store):
    """Its submission may be on its way at this moment."""
    found = observe(*record(store, "a-run", state="pending", heartbeat_at=None))
    assert found == ObservedState("pending", "Kubernetes has no job a-run-1")
    put_rayjob(api, "a-run-1", "Failed", reason="PreRunningDeadlineExceeded")
    run = Run(store, "a-run")
    assert observe(run, run.status()).state == "lost"


def test_a_driver_that_closed_its_run_while_its_job_was_asked_for_is_believed(
    api: ApiServer, store: Store
):
    run, before = record(store, "a-run")
    run.change_status(lambda status: replace(status, state="finished"))
    assert observe(run, before) == ObservedState("finished")


def test_a_silent_run_whose_rayjob_goes_on_says_what_that_waits_for(api: ApiServer, store: Store):
    put_rayjob(api, "a-run-1", "Running")
    put_pod(api, "a-head", "a-run-1-xyz", {"status": {"conditions": [UNSCHEDULED]}})
    found = observe(*record(store, "a-run"))
    assert found.state == "running"
    assert "its last heartbeat was 8 min ago by this machine's clock" in found.reason
    assert "job a-run-1 is running; no node has enough nvidia.com/gpu" in found.reason


def test_a_running_run_that_waits_for_room_says_what_its_pods_lack(api: ApiServer, store: Store):
    fresh = {"heartbeat_at": datetime.now(UTC).isoformat(), "progress": {"waits_for": WAITS}}
    run = record(store, "a-run", "ray-jobs", NOBODY, **fresh)
    mine = profile(mode="ray-jobs", dashboard=NOBODY)
    assert observe(*run, mine) == ObservedState("running", f"it waits for {WAITS}")
    put_pod(api, "a-worker", "cifarray", {"status": {"conditions": [UNSCHEDULED]}})
    assert observe(*run, mine).reason.startswith(
        "no node has enough nvidia.com/gpu for pod a-worker"
    )


def test_a_running_run_that_waits_for_nothing_is_believed(api: ApiServer, store: Store):
    fresh = {"heartbeat_at": datetime.now(UTC).isoformat(), "progress": {"unit": "epochs"}}
    assert observe(*record(store, "a-run", **fresh)) == ObservedState("running")
    assert api.asked == []


def test_a_head_on_a_node_that_is_gone_is_named_and_no_port_of_this_machine(
    api: ApiServer, store: Store
):
    put_node(api, "Unknown")
    put_pod(api, "cifarray-head", "cifarray", on_node("False"))
    mine = profile(mode="ray-jobs", dashboard=NOBODY)
    found = observe(*record(store, "a-run", "ray-jobs", NOBODY), mine)
    assert found.state == "running"
    assert "clock; node node-7 of pod cifarray-head does not answer" in found.reason
    assert "127.0.0.1" not in found.reason


def test_many_runs_take_one_list_of_rayjobs(api: ApiServer, store: Store):
    for number in range(5):
        record(store, f"run-{number}")
    put_rayjob(api, "run-0-1", "Running")
    put_rayjob(api, "run-1-1", "Failed", reason="DeadlineExceeded")
    listed = summaries(store)
    found = {each.run.id: it for each, it in zip(listed, observe_all(listed), strict=True)}
    assert found.pop("run-0").state == "running"
    assert "DeadlineExceeded" in found["run-1"].reason
    assert [each.state for each in found.values()] == ["lost"] * 4
    assert api.requests() == [f"GET {RAYJOBS}"]


def test_many_runs_of_the_long_lived_cluster_take_one_list_of_jobs(api: ApiServer, store: Store):
    asked: Counter[str] = Counter()

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        asked[request] += 1
        jobs = [{"submission_id": "run-1-1", "status": "RUNNING"}]
        return 200, {}, json.dumps(jobs).encode()

    with answering(answer) as address:
        for number in range(5):
            record(store, f"run-{number}", "ray-jobs", address)
        found = observe_all(summaries(store), profile(mode="ray-jobs", dashboard=address))
    assert sorted(each.state for each in found) == ["lost"] * 4 + ["running"]
    assert asked == {"GET /api/jobs/": 1}


def test_a_cluster_that_is_away_is_asked_once_and_the_records_are_shown(store: Store):
    """No server, and no kubeconfig that leads to one."""
    for number in range(3):
        record(store, f"run-{number}")
    found = observe_all(summaries(store))
    assert [each.state for each in found] == ["running"] * 3
    assert all("no kubeconfig" in each.reason for each in found)


def test_a_record_of_another_version_is_told_and_no_traceback(api: ApiServer, store: Store):
    run, status = record(store, "a-run")
    cluster = {**(status.cluster or {}), "kubernetes": {"worker_memory": "16 GB"}}
    run.set_cluster(cluster)
    found = observe(run, run.status())
    assert found.state == "running"
    assert "does not say which cluster the run is on" in found.reason
