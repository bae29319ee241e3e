"""What tests on a real cluster share: the throw-away one that CIFARRAY_TEST_KUBECONFIG names."""

import base64
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.spec.profile import KubernetesSpec
from tests.cluster.kubectl import NAMESPACE, Kubectl, until
from tests.cluster.runs import PROFILE, Runs
from tests.conftest import REPOSITORY
from tests.integration.command_line import CommandLine

MANIFESTS = REPOSITORY / "k8s" / "rendered" / "local.yaml"
SUBMITTER = "a-person"


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Kubectl as the cluster's administrator."""
    named = os.environ.get("CIFARRAY_TEST_KUBECONFIG")
    if not named:
        pytest.skip("no throw-away cluster is named in CIFARRAY_TEST_KUBECONFIG")
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    return Kubectl(Path(named))


@pytest.fixture(scope="session")
def administrator(kubectl: Kubectl) -> Kube:
    """The namespace through the client, with every right."""
    os.environ["KUBECONFIG"] = str(kubectl.kubeconfig)
    try:
        return Kube.open(KubernetesSpec(namespace=NAMESPACE))
    finally:
        os.environ["KUBECONFIG"] = os.devnull


@pytest.fixture(scope="session")
def ray_kinds(kubectl: Kubectl) -> None:
    """The cluster knows RayClusters and RayJobs."""
    if kubectl.type("get", "crd", "rayjobs.ray.io").returncode != 0:
        pytest.skip("the cluster has no RayJob: install KubeRay's CRDs")


@pytest.fixture(scope="session")
def applied(kubectl: Kubectl, ray_kinds: None) -> None:
    """The manifests of overlays/local are applied."""
    kubectl("apply", "-f", str(MANIFESTS))


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl) -> None:
    """KubeRay's operator runs."""
    labels = "app.kubernetes.io/component=kuberay-operator"
    pods = kubectl.json("get", "pods", "--all-namespaces", "-l", labels)["items"]
    if not any(pod["status"].get("phase") == "Running" for pod in pods):
        pytest.skip("KubeRay's operator does not run in the cluster")


@pytest.fixture(scope="session")
def ready(kubectl: Kubectl, applied: None, operator: None) -> None:
    """Store, bucket and RayCluster are up; the image is where the nodes find it."""
    until(
        "the RayCluster to be ready",
        lambda: (
            kubectl.json("-n", NAMESPACE, "get", "raycluster", "cifarray")
            .get("status", {})
            .get("state")
            == "ready"
        ),
    )
    until(
        "the store to be ready",
        lambda: kubectl.json("-n", NAMESPACE, "get", "deployment", "cifarray-store")["status"].get(
            "readyReplicas"
        ),
    )


@pytest.fixture(scope="session")
def submitter(
    kubectl: Kubectl, applied: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A kubeconfig of somebody who has the Role cifarray-submitter and nothing else."""
    folder = tmp_path_factory.mktemp("submitter")
    namespace = ("-n", NAMESPACE)
    account = f"{NAMESPACE}:{SUBMITTER}"
    kubectl(*namespace, "create", "serviceaccount", SUBMITTER)
    try:
        kubectl(
            *namespace, "create", "rolebinding", SUBMITTER,
            "--role=cifarray-submitter", f"--serviceaccount={account}",
        )  # fmt: skip
        token = kubectl(*namespace, "create", "token", SUBMITTER, "--duration=4h").strip()
        cluster = kubectl.json("config", "view", "--raw", "--minify")["clusters"][0]["cluster"]
        path = folder / "kubeconfig"
        path.write_text(json.dumps(kubeconfig(cluster, token)))
        path.chmod(0o600)
        yield path
    finally:
        kubectl(*namespace, "delete", "rolebinding,serviceaccount", SUBMITTER)


def kubeconfig(cluster: dict[str, Any], token: str) -> dict[str, Any]:
    """A kubeconfig with one context."""
    if file := cluster.pop("certificate-authority", None):
        data = base64.b64encode(Path(file).read_bytes()).decode()
        cluster["certificate-authority-data"] = data
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": SUBMITTER, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": SUBMITTER}}],
        "current-context": "test",
    }


@pytest.fixture(scope="session")
def cifarray(submitter: Path, ready: None, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line as the submitter types it on a laptop; the digits are in the store."""
    folder = tmp_path_factory.mktemp("laptop")
    environment = {"KUBECONFIG": str(submitter), "CIFARRAY_STATE_DIR": str(folder / "state")}
    typed = CommandLine(environment, folder)
    typed("data", "prepare", "digits", "--cluster", PROFILE)
    return typed


@pytest.fixture(scope="session")
def runs(cifarray: CommandLine, kubectl: Kubectl) -> Runs:
    """Runs of that person."""
    return Runs(cifarray, kubectl)


@pytest.fixture(scope="session")
def undisturbed_run(runs: Runs) -> str:
    """A training that nothing has disturbed."""
    name = f"undisturbed-{secrets.token_hex(3)}"
    runs.submit(name)
    return name


@pytest.fixture(scope="session")
def undisturbed(runs: Runs, undisturbed_run: str) -> dict[str, Any]:
    """Its report."""
    return runs.report(undisturbed_run)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a test's run that no earlier one has."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    return f"{words[:24].strip('-')}-{secrets.token_hex(3)}"
