"""`status`, `logs`, `stop` and a followed end of runs on Kubernetes, against an API server."""

import dataclasses
import json
import os
from base64 import b64encode
from pathlib import Path

import pytest

from cifarray.cli.following import follow_run
from cifarray.cli.options import open_store
from cifarray.runs import Run
from cifarray.store import Access, Store
from tests.unit.backends.kubernetes.api_server import (
    ApiServer,
    open_kube,
    refusal,
    write_kubeconfig,
)
from tests.unit.backends.kubernetes.conftest import api
from tests.unit.backends.kubernetes.kube_requests import (
    JOB_ID,
    PODS,
    POLICIES,
    RAYJOBS,
    RUN_ID,
    cluster_of,
    put_policy,
    put_rayjob,
    recorded_run,
)
from tests.unit.cli.conftest import Type

__all__ = ["api"]

RAYJOB, POLICY = f"{RAYJOBS}/{JOB_ID}", f"{POLICIES}/{JOB_ID}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One that pods and this machine reach alike."""
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def on(store: Store, tmp_path: Path) -> tuple[str, str]:
    """The option that names a cluster with this store."""
    path = tmp_path / "kube.yaml"
    path.write_text(
        f"kind: kubernetes\nstore: {{uri: {store.uri}, region: eu-north-1}}\n"
        "kubernetes: {store_service: null}\n"
    )
    return "--cluster", str(path)


@pytest.fixture(autouse=True)
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a profile says of its region."""
    monkeypatch.setenv("AWS_REGION", "of-nobody")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)


@pytest.fixture
def run(api: ApiServer, store: Store) -> Run:
    """A run that waits on that cluster."""
    recorded = recorded_run(store)
    recorded.set_cluster(cluster_of(open_kube()).record(JOB_ID))
    return recorded


def test_a_failed_run_whose_rayjob_is_tried_again_can_be_stopped(
    api: ApiServer, typed: Type, on: tuple[str, str], run: Run
) -> None:
    put_rayjob(api, stage="Retrying")
    put_policy(api)
    run.mark_failed("its driver said so")
    shown = typed("stop", RUN_ID, *on)
    assert shown.code == 0, shown.err
    assert (
        shown.out
        == f"run {RUN_ID} had failed already; its job {JOB_ID} was still running and is now "
        "ended\n"
    )
    assert api.objects == {}
    assert run.status().state == "failed"
    again = typed("stop", RUN_ID, *on)
    assert again.code == 2
    assert f"run {RUN_ID} has ended already (failed): nothing to stop" in again.err


def test_a_stop_whose_deletion_was_refused_can_be_repeated(
    api: ApiServer, typed: Type, on: tuple[str, str], run: Run
) -> None:
    put_rayjob(api)
    api.script(f"DELETE {RAYJOB}", refusal(403, "not today"))
    shown = typed("stop", RUN_ID, *on)
    assert shown.code == 1 and "not today" in shown.err
    assert run.status().state == "stopped"
    shown = typed("stop", RUN_ID, *on, "--json")
    assert json.loads(shown.out) == {"run_id": RUN_ID, "state": "stopped"}
    assert RAYJOB not in api.objects


def test_a_stop_takes_the_policy_of_an_applied_run_along(
    api: ApiServer, typed: Type, on: tuple[str, str], run: Run
) -> None:
    put_rayjob(api)
    put_policy(api)
    put_policy(api, "another-run-1")
    assert typed("stop", RUN_ID, *on).out == f"run {RUN_ID} was stopped\n"
    assert set(api.objects) == {f"{POLICIES}/another-run-1"}


def test_of_an_ended_run_whose_job_cannot_be_asked_for_nothing_is_claimed(
    api: ApiServer, typed: Type, on: tuple[str, str], run: Run
) -> None:
    run.mark_stopped("by a person")
    api.forbid(f"GET {RAYJOB}")
    shown = typed("stop", RUN_ID, *on)
    assert shown.code == 1
    assert "has ended already (stopped), but whether its job has ended is unknown" in shown.err


def test_the_end_of_a_followed_run_that_failed_ends_its_retries(
    api: ApiServer, typed: Type, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    put_rayjob(api, stage="Retrying")
    put_policy(api)
    run.mark_failed("its driver said so")
    assert follow_run(run).status.state == "failed"
    assert f"deleted RayJob {JOB_ID}, which KubeRay would have retried" in (capsys.readouterr().err)
    assert api.objects == {}


def test_the_rayjob_of_a_followed_run_that_finished_stays(api: ApiServer, run: Run) -> None:
    put_rayjob(api, stage="Complete", jobStatus="SUCCEEDED")
    put_policy(api)
    run.change_status(lambda status: dataclasses.replace(status, state="finished"))
    follow_run(run)
    assert set(api.objects) == {RAYJOB, POLICY}


def test_status_says_what_an_applied_run_waits_for_before_its_driver_begins(
    api: ApiServer, typed: Type, on: tuple[str, str]
) -> None:
    put_rayjob(api, stage="Suspended")
    shown = typed("status", RUN_ID, *on)
    assert shown.code == 0, shown.err
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert lines == {
        "run": RUN_ID,
        "state": "pending",
        "reason": "it waits for admission in its queue",
        "cluster": "kube",
    }
    assert json.loads(typed("status", RUN_ID, *on, "--json").out)["run_id"] == RUN_ID
    shown = typed("logs", RUN_ID, *on)
    assert (shown.code, shown.out) == (0, "")
    assert "its driver has not started (it waits for admission in its queue)" in shown.err


def test_an_applied_run_can_be_stopped_before_its_driver_begins(
    api: ApiServer, typed: Type, on: tuple[str, str]
) -> None:
    put_rayjob(api, stage="Initializing")
    put_policy(api)
    shown = typed("stop", RUN_ID, *on)
    assert shown.out == f"run {RUN_ID} was stopped before its driver started\n"
    assert api.objects == {}


def test_an_applied_run_that_never_began_says_why_and_has_nothing_to_stop(
    api: ApiServer, typed: Type, on: tuple[str, str]
) -> None:
    put_rayjob(api, stage="Failed", reason="PreRunningDeadlineExceeded")
    shown = typed("status", RUN_ID, *on)
    assert "state      failed" in shown.out and "PreRunningDeadlineExceeded" in shown.out
    shown = typed("stop", RUN_ID, *on)
    assert shown.code == 2
    assert "ended before its driver started (PreRunningDeadlineExceeded)" in shown.err
    assert RAYJOB in api.objects


@pytest.mark.parametrize("command", ["status", "logs", "stop"])
def test_a_run_that_neither_store_nor_cluster_knows_is_no_run(
    api: ApiServer, typed: Type, on: tuple[str, str], command: str
) -> None:
    shown = typed(command, RUN_ID, *on)
    assert shown.code == 2
    assert f"no run '{RUN_ID}'" in shown.err


def test_a_colleague_names_the_cluster_of_a_run_by_a_profile(
    api: ApiServer,
    typed: Type,
    on: tuple[str, str],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_kubeconfig(tmp_path / "colleagues", api.address, ("theirs",))
    monkeypatch.setenv("KUBECONFIG", str(path))
    told = json.loads(typed("status", RUN_ID, "--store", run.store.uri, "--json").out)
    assert told["state"] == "pending" and "name its cluster with --cluster" in told["reason"]
    put_rayjob(api, stage="Suspended")
    told = json.loads(typed("status", RUN_ID, *on, "--json").out)
    assert told["reason"] == "it waits for admission in its queue"
    assert typed("stop", RUN_ID, *on).code == 0


def test_the_region_of_a_profile_goes_to_its_store_and_not_into_the_environment(
    api: ApiServer, typed: Type, on: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "bucket.yaml"
    path.write_text(
        "kind: kubernetes\nstore: {uri: s3://bucket, region: eu-north-1}\n"
        "kubernetes: {store_service: null}\n"
    )
    keys = {"AWS_ACCESS_KEY_ID": "of-the-cluster", "AWS_SECRET_ACCESS_KEY": "its-secret"}
    encoded = {name: b64encode(value.encode()).decode() for name, value in keys.items()}
    api.put("/api/v1/namespaces/cifarray/secrets/cifarray-store", data=encoded)
    before = dict(os.environ)
    assert open_store(None, None, str(path)).access == Access(
        "eu-north-1", "of-the-cluster", "its-secret"
    )
    assert typed("runs", *on).code == 0
    assert dict(os.environ) == before


def test_an_endpoint_that_is_typed_gets_this_shells_keys_and_not_the_clusters(
    api: ApiServer, on: tuple[str, str]
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "of-the-cluster", "AWS_SECRET_ACCESS_KEY": "its-secret"}
    encoded = {name: b64encode(value.encode()).decode() for name, value in keys.items()}
    api.put("/api/v1/namespaces/cifarray/secrets/cifarray-store", data=encoded)
    opened = open_store("s3://bucket", "http://127.0.0.1:9", on[1])
    assert opened.access == Access("eu-north-1")


def test_why_of_a_failed_run_tells_what_its_pods_still_say_and_writes_nothing(
    api: ApiServer, typed: Type, on: tuple[str, str], run: Run
) -> None:
    put_rayjob(api, stage="Failed", rayClusterName="a-run-xyz")
    waits = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
    }
    labels = {"ray.io/cluster": "a-run-xyz", "ray.io/node-type": "worker"}
    api.put(
        f"{PODS}/a-worker",
        metadata={"name": "a-worker", "labels": labels},
        status={"conditions": [waits]},
    )
    run.mark_failed("its driver said so")
    before = {entry.key: run.store.read(entry.key) for entry in run.store.list(run.prefix)}
    shown = typed("status", RUN_ID, "--why", *on)
    assert shown.code == 0, shown.err
    (pods,) = [line for line in shown.out.splitlines() if line.startswith("pods ")]
    assert "2 Insufficient nvidia.com/gpu" in pods
    assert {e.key: run.store.read(e.key) for e in run.store.list(run.prefix)} == before
    api.forbid(f"GET {RAYJOB}")
    shown = typed("status", RUN_ID, "--why", *on)
    assert shown.code == 0
    assert "cause      its driver said so" in shown.out and "pods " not in shown.out
