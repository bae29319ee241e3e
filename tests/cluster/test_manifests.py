"""The manifests on a real API server: applied twice, admitted, with the rights that they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MANIFESTS
from tests.cluster.kubectl import NAMESPACE, Kubectl
from tests.unit.kubernetes.rights_table import documented

pytestmark = pytest.mark.timeout(600)
EVERYBODYS = {"authorization.k8s.io", "authentication.k8s.io"}
"""Groups in which everybody may ask what they may do."""
DOCUMENTED = documented()


def generations(kubectl: Kubectl) -> dict[tuple[str, str], int]:
    """Each applied object's metadata.generation, where it has one; Jobs may run again."""
    found = {}
    for manifest in documents(MANIFESTS):
        if manifest["kind"] == "Job":
            continue
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        live = kubectl.json("-n", NAMESPACE, "get", kind, name)
        found[kind, name] = live["metadata"].get("generation", 0)
    return found


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def rights(kubectl: Kubectl, user: str) -> set[tuple[str, str, str, str]]:
    """(verb, group, resource, name) of all that a user may do in the namespace."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": NAMESPACE},
    }
    words = ("create", "--validate=false", "-f", "-", "-o", "yaml", "--as", user)
    answer = yaml.safe_load(kubectl(*words, stdin=yaml.safe_dump(review)))
    return {
        (verb, group, resource, name)
        for rule in answer["status"]["resourceRules"]
        for group in rule.get("apiGroups", ())
        if group not in EVERYBODYS
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
    }


def test_applying_again_warns_of_nothing_and_changes_nothing(kubectl: Kubectl, applied: None):
    before = generations(kubectl)
    pods = {pod["metadata"]["uid"] for pod in kubectl.pods("ray.io/cluster=cifarray")}
    kubectl("apply", "-f", str(MANIFESTS))
    assert generations(kubectl) == before
    assert pods <= {pod["metadata"]["uid"] for pod in kubectl.pods("ray.io/cluster=cifarray")}


def test_the_namespace_refuses_a_pod_that_is_not_locked_down(kubectl: Kubectl, applied: None):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "a", "image": "b:1"}]},
    }
    ended = kubectl.type("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    assert ended.returncode != 0
    assert "violates PodSecurity" in ended.stderr


@pytest.mark.parametrize("kind, name", DOCUMENTED)
def test_nobody_may_do_anything_but_what_the_table_says(
    kubectl: Kubectl, applied: None, kind: str, name: str
):
    namespace = ("-n", NAMESPACE)
    if kind == "ServiceAccount":
        found = rights(kubectl, f"system:serviceaccount:{NAMESPACE}:{name}")
    else:
        words = ("create", "rolebinding", "for-a-test", f"--role={name}", "--user=ana")
        kubectl(*namespace, *words)
        try:
            found = rights(kubectl, "ana")
        finally:
            kubectl(*namespace, "delete", "rolebinding", "for-a-test")
    assert found == DOCUMENTED[kind, name]
