"""Runs on a real cluster with KubeRay, submitted by somebody who may do no more than that."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarray.reporting.record import SCHEMA_VERSION
from cifarray.spec.load import load_profile
from tests.cluster.conftest import NAMESPACE, PROFILE, Kubectl, until
from tests.integration.command_line import CommandLine
from tests.unit.kubernetes.policy import findings
from tests.unit.kubernetes.ray_pods import pods_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EPOCHS = ("--set", "train.epochs=6", "--set", "train.global_batch_size=16")
ON = ("--cluster", PROFILE)
STARTS_S = 420.0


@pytest.fixture(scope="module")
def undisturbed(cifarray: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a training that nothing has disturbed."""
    submit(cifarray, "undisturbed")
    return pulled_report(cifarray, "undisturbed", tmp_path_factory.mktemp("undisturbed"))


def submit(cifarray: CommandLine, name: str, *words: str | Path) -> str:
    """Train on two workers and follow it to its end."""
    return cifarray("submit", "train-digits", *ON, *EPOCHS, "--name", name, *words)


def pulled_report(cifarray: CommandLine, name: str, folder: Path) -> dict[str, Any]:
    """A run's report.json, as `pull` brings it."""
    cifarray("pull", name, str(folder / name), *ON)
    content: dict[str, Any] = json.loads((folder / name / "report" / "report.json").read_text())
    return content


def status(cifarray: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cifarray("status", name, *ON, "--json"))
    return found


def epochs_done(cifarray: CommandLine, name: str) -> int:
    return int((status(cifarray, name)["progress"] or {}).get("done") or 0)


def pods(kubectl: Kubectl, run: str, node_type: str | None = None) -> list[dict[str, Any]]:
    labels = f"cifarray/run={run}" + (f",ray.io/node-type={node_type}" if node_type else "")
    found: list[dict[str, Any]] = kubectl.json("-n", NAMESPACE, "get", "pods", "-l", labels)[
        "items"
    ]
    return found


def delete_pod(kubectl: Kubectl, pod: dict[str, Any]) -> None:
    """As a node that fails: at once, with no time to say goodbye."""
    name = pod["metadata"]["name"]
    kubectl.type("-n", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")


def test_a_run_of_its_own_cluster_goes_from_submission_to_a_pulled_report(
    undisturbed: dict[str, Any], cifarray: CommandLine, kubectl: Kubectl
):
    assert undisturbed["schema_version"] == SCHEMA_VERSION
    assert (undisturbed["world_size"], undisturbed["test"]["rows"]) == (2, 360)
    assert "epoch 6" in cifarray("logs", "undisturbed", *ON)
    assert status(cifarray, "undisturbed")["state"] == "finished"
    until("the run's pods to be gone", lambda: not pods(kubectl, "undisturbed"), 180.0)


def test_the_pods_that_exist_keep_to_every_rule(ready: None, kubectl: Kubectl):
    live = kubectl.json("-n", NAMESPACE, "get", "pods")["items"]
    assert any("autoscaler" in str(pod["spec"]["containers"]) for pod in live)
    for pod in live:
        pod.setdefault("kind", "Pod")
    assert findings(pods_of(live)) == []


def test_the_driver_finds_no_token_of_kubernetes(ready: None, kubectl: Kubectl):
    labels = "ray.io/cluster=cifarray,ray.io/node-type=head"
    head = kubectl("-n", NAMESPACE, "get", "pods", "-l", labels, "-o", "name").strip()
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    words = ("-n", NAMESPACE, "exec", head, "-c")
    assert kubectl.type(*words, "ray-head", "--", "ls", folder).returncode != 0
    assert "token" in kubectl(*words, "autoscaler", "--", "ls", folder)


def test_what_a_dry_run_prints_is_a_run_that_kubectl_begins(
    cifarray: CommandLine, kubectl: Kubectl, submitter: Path, undisturbed: dict[str, Any]
):
    printed = cifarray("submit", "train-digits", *ON, *EPOCHS, "--name", "by-kubectl", "--dry-run")
    Kubectl(submitter)("create", "-f", "-", stdin=printed)
    until("the record of the run", lambda: "by-kubectl" in cifarray("runs", *ON), STARTS_S)
    until("its end", lambda: status(cifarray, "by-kubectl")["state"] == "finished", STARTS_S)
    report = json.loads(cifarray("report", "by-kubectl", *ON, "--json"))
    assert report["test"] == undisturbed["test"]


@pytest.mark.parametrize("victim", ["worker", "head", "store"])
def test_a_run_whose_pod_is_deleted_ends_as_if_nothing_had_happened(
    cifarray: CommandLine, kubectl: Kubectl, undisturbed: dict[str, Any], victim: str
):
    name = f"without-its-{victim}"
    submit(cifarray, name, "--detach")
    until("two epochs", lambda: epochs_done(cifarray, name) >= 2, STARTS_S)
    if victim == "store":
        labels = "app.kubernetes.io/name=cifarray-store"
        found = kubectl.json("-n", NAMESPACE, "get", "pods", "-l", labels)["items"]
    else:
        found = pods(kubectl, name, victim)
    delete_pod(kubectl, found[0])

    def ended() -> bool:
        shown = cifarray.type("status", name, *ON, "--json")
        return shown.code == 0 and json.loads(shown.out)["state"] == "finished"

    until("the run to finish all the same", ended, 600.0)
    report = json.loads(cifarray("report", name, *ON, "--json"))
    assert report["test"] == undisturbed["test"]
    assert report["validation"] == undisturbed["validation"]


def profile_file(folder: Path, **fields: Any) -> Path:
    """The profile of a small cluster with other fields; those of its kubernetes section too."""
    values = load_profile(PROFILE).model_dump(mode="json", exclude_none=True)
    section = {name: fields.pop(name) for name in list(fields) if name in values["kubernetes"]}
    values = {**values, **fields, "kubernetes": {**values["kubernetes"], **section}}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpus_per_worker": 1}, "nvidia.com/gpu"),
        ({"image": "cifarray:never-built"}, "image cifarray:never-built cannot be pulled"),
        ({"workers": 30}, "quota"),
    ],
)
def test_status_says_what_a_pending_run_waits_for_and_its_deadline_ends_it(
    cifarray: CommandLine, tmp_path: Path, kubectl: Kubectl, fields: dict[str, Any], words: str
):
    path = profile_file(tmp_path, max_wait_s=60, retries=0, **fields)
    name = f"pending-{next(iter(fields)).replace('_', '-')}"
    more = ("--set", "train.global_batch_size=64", "--name", name, "--detach")
    cifarray("submit", "train-digits", "--cluster", str(path), *more)

    def reason() -> str:
        return str(status(cifarray, name)["reason"] or "")

    until(f"status to say {words}", lambda: words in reason(), 55.0)
    until("the deadline", lambda: status(cifarray, name)["state"] == "lost", 120.0)
    assert "Deadline" in reason()
    kubectl.type("-n", NAMESPACE, "delete", "rayjob", "-l", f"cifarray/run={name}")


def test_a_run_that_is_stopped_leaves_nothing_behind(cifarray: CommandLine, kubectl: Kubectl):
    submit(cifarray, "stopped", "--set", "train.epochs=500", "--detach")
    until("an epoch", lambda: epochs_done(cifarray, "stopped") >= 1, STARTS_S)
    assert "was stopped" in cifarray("stop", "stopped", *ON)
    until("its pods to be gone", lambda: not pods(kubectl, "stopped"), 240.0)
    assert status(cifarray, "stopped")["state"] == "stopped"
    words = ("-n", NAMESPACE, "get", "rayjob,networkpolicy", "-l", "cifarray/run=stopped")
    until("its objects to be gone", lambda: not kubectl.json(*words)["items"], 120.0)


def test_ctrl_c_leaves_a_run_alone(cifarray: CommandLine):
    following = cifarray.start("submit", "train-digits", *ON, *EPOCHS, "--name", "left-alone")
    until("the run", lambda: "left-alone" in cifarray("runs", *ON), 120.0)
    time.sleep(5.0)
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=60)
    assert following.returncode == 130
    assert "goes on by itself" in said
    until("its end", lambda: status(cifarray, "left-alone")["state"] == "finished", STARTS_S)


def test_the_long_lived_cluster_grows_for_a_run_and_shrinks_again(
    cifarray: CommandLine, tmp_path: Path, kubectl: Kubectl, undisturbed: dict[str, Any]
):
    path = profile_file(tmp_path, mode="ray-jobs", cpus_per_worker=0.6)
    labels = ("-n", NAMESPACE, "get", "pods", "-l", "ray.io/group=cpu")
    cifarray("submit", "train-digits", "--cluster", str(path), *EPOCHS, "--name", "on-the-shared")
    report = json.loads(cifarray("report", "on-the-shared", *ON, "--json"))
    assert report["test"] == undisturbed["test"]
    until("the workers to go", lambda: not kubectl.json(*labels)["items"], 420.0)
