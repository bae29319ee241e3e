"""Runs on a real cluster with KubeRay, submitted by somebody who may do no more than that."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from cifarray.report.stored import SCHEMA_VERSION
from tests.cluster.conftest import MANIFESTS
from tests.cluster.kubectl import NAMESPACE, Kubectl, until
from tests.cluster.runs import PROFILE, SHORT, STARTS_S, Runs, profile_file, same_figures
from tests.unit.kubernetes.flow_table import (
    differences,
    flows_between,
    others,
    our_actors,
    tables,
)
from tests.unit.kubernetes.policy import findings
from tests.unit.kubernetes.ray_pods import Manifest, pods_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ON = ("--cluster", PROFILE)
SHARED = "ray.io/cluster=cifarray"


def test_a_run_of_its_own_cluster_goes_from_submission_to_a_pulled_report(
    undisturbed: dict[str, Any], undisturbed_run: str, runs: Runs, tmp_path: Path
):
    assert undisturbed["schema_version"] == SCHEMA_VERSION
    assert (undisturbed["world_size"], undisturbed["test"]["rows"]) == (2, 360)
    assert "epoch 6" in runs.cifarray("logs", undisturbed_run, *ON)
    assert runs.state(undisturbed_run) == "finished"
    runs.cifarray("pull", undisturbed_run, str(tmp_path / "pulled"), *ON)
    pulled = json.loads((tmp_path / "pulled" / "report" / "report.json").read_text())
    assert pulled == undisturbed
    until("the run's pods to be gone", lambda: not runs.pods(undisturbed_run), 180.0)


@pytest.fixture(scope="module")
def live(runs: Runs, kubectl: Kubectl) -> dict[str, list[Manifest]]:
    """Pods and policies of the namespace while a run is on its way."""
    name = f"alive-{secrets.token_hex(3)}"
    runs.begin(name, "--set", "train.epochs=500")
    found = {
        kind: kubectl.json("-n", NAMESPACE, "get", kind.lower())["items"]
        for kind in ("Pod", "NetworkPolicy")
    }
    runs.cifarray("stop", name, *ON)
    return {kind: [{"kind": kind, **each} for each in items] for kind, items in found.items()}


def test_the_pods_that_exist_keep_to_every_rule(live: dict[str, list[Manifest]]):
    pods = pods_of(live["Pod"])
    names = {container["name"] for pod in pods for container in pod.containers}
    assert {"autoscaler", "wait-gcs-ready", "ray-head", "ray-worker", "gateway"} <= names
    assert findings(pods) == []


def test_the_policies_that_exist_do_with_real_pods_what_the_table_says(
    live: dict[str, list[Manifest]],
):
    rows, _ = tables()
    flows = flows_between([*our_actors(pods_of(live["Pod"])), *others()])
    assert any(flow.source.run and "store" in flow.target.names for flow in flows)
    assert list(differences(rows, live["NetworkPolicy"], flows)) == []


def test_the_driver_finds_no_token_of_kubernetes(ready: None, kubectl: Kubectl):
    [head] = kubectl.pods("ray.io/cluster=cifarray,ray.io/node-type=head")
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    words = ("-n", NAMESPACE, "exec", head["metadata"]["name"], "-c")
    assert kubectl.type(*words, "ray-head", "--", "ls", folder).returncode != 0
    assert "token" in kubectl(*words, "autoscaler", "--", "ls", folder)


def test_what_a_dry_run_prints_is_a_run_that_kubectl_begins(
    runs: Runs, submitter: Path, undisturbed: dict[str, Any], name: str
):
    printed = runs.submit(name, "--dry-run")
    Kubectl(submitter)("apply", "-f", "-", stdin=printed)
    until("the record of the run", lambda: name in runs.cifarray("runs", *ON), STARTS_S)
    assert same_figures(runs.wait_until_finished(name), undisturbed)


@pytest.mark.parametrize("mode", ["rayjob", "ray-jobs"])
def test_a_sweep_goes_on_two_workers_to_a_report_in_either_mode(
    runs: Runs, tmp_path: Path, name: str, mode: str
):
    path = profile_file(tmp_path, mode=mode)
    few = ("--set", "sweep.trials=2", "--set", "train.epochs=2")
    more = ("--set", "sweep.workers_per_trial=2", "--name", name, "--detach")
    runs.cifarray("submit", "tune-digits", "--cluster", path, *few, *more)
    report = runs.wait_until_finished(name)
    assert [trial["state"] for trial in report["trials"]] == ["finished", "finished"]
    assert (report["world_size"], report["test"]["rows"]) == (2, 360)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpus_per_worker": 1}, "nvidia.com/gpu"),
        ({"image": "cifarray:never-built"}, "image cifarray:never-built cannot be pulled"),
        ({"workers": 30}, "quota"),
    ],
)
def test_status_says_what_a_pending_run_waits_for_and_its_deadline_ends_it(
    runs: Runs, tmp_path: Path, kubectl: Kubectl, name: str, fields: dict[str, Any], words: str
):
    path = profile_file(tmp_path, max_wait_s=60, retries=0, **fields)
    more = ("--set", "train.global_batch_size=64", "--name", name, "--detach")
    runs.cifarray("submit", "train-digits", "--cluster", path, *more)
    until(f"status to say {words}", lambda: words in runs.reason(name), 55.0)
    assert "Deadline" in runs.wait_until_lost(name, 120.0)
    kubectl.type("-n", NAMESPACE, "delete", "rayjob", "-l", f"cifarray/run={name}")


def test_a_run_that_is_stopped_leaves_nothing_behind(runs: Runs, kubectl: Kubectl, name: str):
    runs.begin(name, "--set", "train.epochs=500")
    assert "was stopped" in runs.cifarray("stop", name, *ON)
    until("its pods to be gone", lambda: not runs.pods(name), 240.0)
    assert runs.state(name) == "stopped"
    words = ("-n", NAMESPACE, "get", "rayjob,networkpolicy", "-l", f"cifarray/run={name}")
    until("its objects to be gone", lambda: not kubectl.json(*words)["items"], 120.0)


def test_the_long_lived_cluster_grows_for_a_run_though_it_is_applied_anew_and_shrinks_again(
    runs: Runs, tmp_path: Path, kubectl: Kubectl, name: str, undisturbed: dict[str, Any]
):
    runs.begin(name, on=profile_file(tmp_path, mode="ray-jobs"))
    before = {pod["metadata"]["uid"] for pod in kubectl.pods(SHARED)}
    kubectl("apply", "-f", str(MANIFESTS))
    assert same_figures(runs.wait_until_finished(name), undisturbed)
    assert before <= {pod["metadata"]["uid"] for pod in kubectl.pods(SHARED)}
    until("the workers to go", lambda: not kubectl.pods("ray.io/group=cpu"), 420.0)


def test_no_worker_of_a_cpu_group_serves_a_run_that_is_promised_a_gpu(
    runs: Runs, tmp_path: Path, name: str
):
    """What its pods would get is what `status` names; nothing runs on a CPU by mistake."""
    path = profile_file(tmp_path, mode="ray-jobs", gpus_per_worker=1, max_wait_s=60)
    runs.cifarray("submit", "train-digits", "--cluster", path, *SHORT, "--name", name, "--detach")
    until("its driver's clock to end it", lambda: runs.state(name) == "failed", STARTS_S)
    assert "GPU" in runs.status(name)["error"]
