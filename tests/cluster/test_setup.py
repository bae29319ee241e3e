"""A namespace set up, looked at and taken down by `cifarray cluster`, which needs no kubectl."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.kubectl import NAMESPACE, Kubectl, until
from tests.cluster.runs import profile_file
from tests.conftest import REPOSITORY
from tests.integration.command_line import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECOND = "cifarray-second"
OVERLAY = ("--overlay", "local")


@pytest.fixture
def administrator_s(kubectl: Kubectl, tmp_path: Path) -> CommandLine:
    """The command line as the cluster's administrator types it."""
    environment = {"KUBECONFIG": str(kubectl.kubeconfig), "CIFARRAY_STATE_DIR": str(tmp_path)}
    return CommandLine(environment, tmp_path)


@pytest.fixture
def second(kubectl: Kubectl, tmp_path: Path) -> Iterator[Path]:
    """The profile of a second namespace, which is gone at the end."""
    yield profile_file(tmp_path, namespace=SECOND)
    kubectl("delete", "namespace", SECOND, "--ignore-not-found", "--timeout=300s")


def test_a_namespace_goes_from_nothing_to_ready_and_back_to_nothing(
    ready: None, kubectl: Kubectl, administrator_s: CommandLine, second: Path
):
    on = ("--cluster", second)
    kubectl("apply", "-f", "-", stdin=administrator_s("cluster", "render", *OVERLAY, *on))
    first = administrator_s.json("cluster", "up", *OVERLAY, *on)
    assert (first["namespace"], first["created"]) == (SECOND, [])
    again = administrator_s.json("cluster", "up", *OVERLAY, *on)
    assert (again["created"], again["changed"]) == ([], [])
    seen = administrator_s.json("cluster", "status", *on)
    assert seen["pods"]
    running = [pod for pod in seen["pods"] if pod["state"] == "running"]
    assert {pod["role"] for pod in running} == {"head", "cifarray-store"}
    assert all(pod["ready"] == pod["containers"] for pod in running)
    checks = administrator_s.json("doctor", *on)
    assert [each for each in checks if each["outcome"] == "failed"] == []
    administrator_s("cluster", "down", *on, "--delete-store", "--yes")
    until("the namespace to be gone", lambda: SECOND not in namespaces(kubectl), 60.0)
    assert "cifarray-head" in kubectl("get", "priorityclass", "-o", "name")  # the other one's too


def namespaces(kubectl: Kubectl) -> list[str]:
    return [each["metadata"]["name"] for each in kubectl.json("get", "namespaces")["items"]]


def test_the_store_the_bucket_and_the_secrets_come_up(ready: None, kubectl: Kubectl):
    where = ("-n", NAMESPACE)
    jobs = kubectl.json(*where, "get", "jobs")["items"]
    assert all(job["status"].get("succeeded") == 1 for job in jobs)
    secrets = {each["metadata"]["name"] for each in kubectl.json(*where, "get", "secrets")["items"]}
    assert {"cifarray-store", "cifarray-store-root"} <= secrets
    store = "app.kubernetes.io/name=cifarray-store"
    assert kubectl.is_ready(store)


@pytest.mark.parametrize("overlay", ["gpu", "local", "external-s3"])
def test_the_api_server_takes_every_rendered_overlay(applied: None, kubectl: Kubectl, overlay: str):
    path = REPOSITORY / "k8s" / "rendered" / f"{overlay}.yaml"
    documents = [each for each in yaml.safe_load_all(path.read_text()) if each]
    # The claim that is there may not be made larger, which another overlay would.
    tried = [each for each in documents if each["kind"] != "PersistentVolumeClaim"]
    words = ("apply", "--dry-run=server", "-o", "name", "-f", "-")
    assert len(kubectl(*words, stdin=yaml.safe_dump_all(tried)).splitlines()) == len(tried)
