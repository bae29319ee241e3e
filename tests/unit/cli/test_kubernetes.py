"""`cluster render`, `up`, `down`, `status` and `doctor` as typed, against an API server."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarray.backends.kubernetes.manifests import manifests, overlay_text
from tests.unit.backends.kubernetes.api_server import GROUPS, ApiServer, conflict, refusal
from tests.unit.backends.kubernetes.conftest import api
from tests.unit.cli.conftest import Type

__all__ = ["api"]

CIFARRAY = Path(sys.executable).with_name("cifarray")
NAMESPACE = "/api/v1/namespaces/cifarray"
RAYJOBS = "/apis/ray.io/v1/namespaces/cifarray/rayjobs"
CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
STORE = "/apis/apps/v1/namespaces/cifarray/deployments/cifarray-store"
CLAIM = f"{NAMESPACE}/persistentvolumeclaims/cifarray-store"
OURS = {"labels": {"app.kubernetes.io/part-of": "cifarray"}}
ON = ("--cluster", "kubernetes")
READY = {"conditions": [{"type": "HeadPodReady", "status": "True"}]}


@pytest.fixture
def ready(api: ApiServer) -> ApiServer:
    """A server on which everything that is applied is ready at once."""
    up = {"observedGeneration": 1, "availableReplicas": 1, "updatedReplicas": 1}
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    statuses = {"deployments": up, "jobs": done, "rayclusters": READY}

    def come_up(asked: Any) -> None:
        for path, found in api.objects.items():
            kind = path.split("/")[-2]
            if kind in statuses:
                found.setdefault("status", statuses[kind])

    api.on_request = come_up
    return api


def test_render_prints_what_travels_with_cifarray(typed: Type) -> None:
    shown = typed("cluster", "render", "--overlay", "local")
    assert shown.code == 0
    assert shown.out == overlay_text("local")


def test_render_puts_another_image_in(typed: Type) -> None:
    shown = typed("cluster", "render", "--image", "registry.example/cifarray:9")
    assert list(yaml.safe_load_all(shown.out)) == manifests("gpu", "registry.example/cifarray:9")
    assert "image: cifarray:" not in shown.out


def test_up_applies_waits_and_says_what_comes_next(ready: ApiServer, typed: Type) -> None:
    shown = typed("cluster", "up", *ON)
    assert shown.code == 0, shown.err
    assert shown.out == "ready: namespace cifarray of tests\n"
    assert f"{len(manifests('gpu'))} created, 0 changed, 0 unchanged" in shown.err
    assert "RayCluster cifarray: ready" in shown.err
    assert "next: cifarray submit tune-digits --prepare --cluster kubernetes" in shown.err


def test_up_takes_image_namespace_and_registry_from_the_profile(
    ready: ApiServer, typed: Type, tmp_path: Path
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "kind: kubernetes\nstore: {uri: s3://cifarray}\nkubernetes:\n"
        "  {namespace: team-a, image: registry.example/cifarray:9, image_pull_secret: keys}\n"
    )
    assert typed("cluster", "up", "--cluster", profile, "--json").code == 0
    made = ready.objects[CLUSTER.replace("/cifarray/ray", "/team-a/ray")]
    (container,) = made["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/cifarray:9"
    assert not [path for path in ready.objects if "/namespaces/cifarray" in path]
    account = ready.objects["/api/v1/namespaces/team-a/serviceaccounts/cifarray-run"]
    assert account["imagePullSecrets"] == [{"name": "keys"}]


def test_up_twice_changes_nothing_and_says_so_to_programs(ready: ApiServer, typed: Type) -> None:
    typed("cluster", "up", *ON)
    shown = typed("cluster", "up", *ON, "--json", "-q")
    told = json.loads(shown.out)
    assert len(told["unchanged"]) == len(manifests("gpu"))
    assert (told["created"], told["changed"], told["settled"]) == ([], [], [])
    assert shown.err == ""


def test_up_says_of_a_scripted_conflict_how_it_was_settled(ready: ApiServer, typed: Type) -> None:
    ready.script(f"PATCH {STORE}", conflict("kubectl-client-side-apply", ".spec.replicas"))
    shown = typed("cluster", "up", *ON)
    assert shown.code == 0
    assert "took .spec.replicas over from `kubectl apply`" in shown.err


def test_up_refuses_a_scripted_conflict_with_a_person_until_it_is_forced(
    ready: ApiServer, typed: Type
) -> None:
    ready.script(f"PATCH {STORE}", conflict("kubectl-edit", ".spec.replicas"))
    shown = typed("cluster", "up", *ON)
    assert shown.code == 1
    assert (
        "error: Deployment cifarray-store: .spec.replicas is managed by kubectl-edit" in shown.err
    )
    assert typed("cluster", "up", *ON, "--force-conflicts").code == 0


def test_up_without_the_operators_kinds_applies_nothing(api: ApiServer, typed: Type) -> None:
    api.script(f"GET {GROUPS}", refusal(404, "not found"))
    shown = typed("cluster", "up", *ON)
    assert shown.code == 1
    assert "install KubeRay's operator 1.7 or newer" in shown.err
    assert api.objects == {}


def test_ctrl_c_while_up_waits_ends_with_130_and_undoes_nothing(api: ApiServer) -> None:
    command = subprocess.Popen(
        [CIFARRAY, "cluster", "up", *ON], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stderr is not None
    for line in command.stderr:
        if "waits for KubeRay's operator" in line:
            break
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "interrupted: what was applied stays" in errors
    assert "Traceback" not in errors
    assert CLUSTER in api.objects and not api.requests("DELETE")


@pytest.mark.parametrize("command", [["up"], ["down", "-y"], ["status"]])
def test_without_a_kubeconfig_each_is_one_sentence(typed: Type, command: list[str]) -> None:
    shown = typed("cluster", *command, *ON)
    assert shown.code == 1
    assert shown.err.startswith("error: no kubeconfig found")
    assert shown.err.count("\n") == 1


def test_down_asks_and_keeps_the_store_unless_told_otherwise(ready: ApiServer, typed: Type) -> None:
    typed("cluster", "up", *ON)
    ready.put(f"{RAYJOBS}/a-1", metadata=OURS)
    shown = typed("cluster", "down", *ON)
    assert shown.code == 2
    assert (
        "ends RayJob a-1 and deletes everything that cifarray created in namespace cifarray of "
        "tests" in shown.err
    )
    assert f"{RAYJOBS}/a-1" in ready.objects
    shown = typed("cluster", "down", *ON, "--yes")
    assert shown.code == 0
    assert "ended RayJob a-1" in shown.out
    assert "kept PersistentVolumeClaim cifarray-store" in shown.out
    assert "--delete-store deletes both" in shown.err
    assert {CLAIM, NAMESPACE} <= set(ready.objects)


def test_down_with_the_store_leaves_nothing(ready: ApiServer, typed: Type) -> None:
    typed("cluster", "up", *ON)
    shown = typed("cluster", "down", *ON, "--yes", "--delete-store", "--json")
    told = json.loads(shown.out)
    assert told["kept"] == [] and "Namespace cifarray" in told["deleted"]
    assert not [path for path in ready.objects if "cifarray" in path]
    assert "nothing of cifarray was found" in typed("cluster", "down", *ON, "--yes").out


def test_status_shows_what_is_there_and_why_something_is_not(ready: ApiServer, typed: Type) -> None:
    typed("cluster", "up", *ON)
    ready.put(
        f"{NAMESPACE}/pods/store-1",
        metadata={"labels": {"app.kubernetes.io/name": "cifarray-store"}},
        spec={"containers": [{"name": "gateway"}], "nodeName": "node-7"},
        status={"phase": "Running"},
    )
    ready.forbid("GET /api/v1/nodes")
    shown = typed("cluster", "status", *ON)
    assert shown.code == 0, shown.err
    assert "RayCluster cifarray ready, Ray 2.60.0, 0 of 4 cpu, 0 of 8 gpu" in shown.out
    assert "GPUs       not shown (GET /api/v1/nodes is forbidden)" in shown.out
    assert "operator   not running; install KubeRay's operator" in shown.out
    assert "store-1" in shown.out and "node-7" in shown.out
    assert "requests.nvidia.com/gpu" in shown.out
    seen = json.loads(typed("cluster", "status", *ON, "--json").out)
    assert seen["profile"] == "kubernetes" and set(seen["hidden"]) == {"gpus"}


def test_doctor_ends_with_1_when_a_check_fails_and_prints_a_line_for_each(
    api: ApiServer, typed: Type
) -> None:
    shown = typed("doctor", *ON)
    assert shown.code == 1
    lines = shown.out.splitlines()
    assert lines[0].startswith("passed   API server")
    assert {line.split()[0] for line in lines} == {"passed", "failed", "skipped"}
    assert f"of {len(lines)} checks failed" in shown.err
    found = json.loads(typed("doctor", *ON, "--json").out)
    assert [each["outcome"] for each in found] == [line.split()[0] for line in lines]
    assert set(found[0]) == {"check", "outcome", "finding", "remedy"}


def test_doctor_looks_at_this_machine_when_no_cluster_is_named(
    typed: Type, cifarray_home: Path
) -> None:
    shown = typed("doctor")
    assert [line.split()[0] for line in shown.out.splitlines()][-1] == "passed"
    assert str(cifarray_home / "store") in shown.out
    assert not (cifarray_home / "store").exists()
