"""The manifests on a real API server: applied twice, admitted, with the rights that they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MANIFESTS, NAMESPACE, Kubectl

pytestmark = pytest.mark.timeout(600)
EVERYBODYS = {"authorization.k8s.io", "authentication.k8s.io"}
"""Groups in which everybody may ask what they may do."""
LOOK = ("get", "list", "watch")
LOOKED_AT = {
    *((resource, "") for resource in (
        "pods", "pods/log", "events", "resourcequotas", "services", "limitranges",
        "persistentvolumeclaims",
    )),
    ("deployments", "apps"), ("jobs", "batch"), ("rayclusters", "ray.io"), ("rayjobs", "ray.io"),
}  # fmt: skip
VIEWER = {(verb, group, resource, "") for verb in LOOK for resource, group in LOOKED_AT}
SUBMITTER = VIEWER | {
    ("create", "ray.io", "rayjobs", ""),
    ("delete", "ray.io", "rayjobs", ""),
    ("get", "networking.k8s.io", "networkpolicies", ""),
    ("create", "networking.k8s.io", "networkpolicies", ""),
    ("get", "", "pods/portforward", ""),
    ("create", "", "pods/portforward", ""),
    ("get", "", "secrets", "cifarray-store"),
}
AUTOSCALER = {(verb, "", "pods", "") for verb in (*LOOK, "patch")} | {
    ("get", "ray.io", "rayclusters", "cifarray"),
    ("patch", "ray.io", "rayclusters", "cifarray"),
}
BOOTSTRAP = {
    ("create", "", "secrets", ""),
    ("get", "", "secrets", "cifarray-store"),
    ("get", "", "secrets", "cifarray-store-root"),
}
ACCOUNTS = {
    "cifarray": AUTOSCALER,
    "cifarray-run": set(),
    "cifarray-store": set(),
    "cifarray-bootstrap": BOOTSTRAP,
}


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
    pods = {pod["metadata"]["uid"] for pod in ray_pods(kubectl)}
    kubectl("apply", "-f", str(MANIFESTS))
    assert generations(kubectl) == before
    assert pods <= {pod["metadata"]["uid"] for pod in ray_pods(kubectl)}


def ray_pods(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Pods of the RayCluster; none where no operator makes them."""
    labels = "ray.io/cluster=cifarray"
    items: list[dict[str, Any]] = kubectl.json("-n", NAMESPACE, "get", "pods", "-l", labels)[
        "items"
    ]
    return items


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


@pytest.mark.parametrize("account", ACCOUNTS)
def test_a_service_account_may_do_what_the_table_says_and_nothing_else(
    kubectl: Kubectl, applied: None, account: str
):
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    assert rights(kubectl, user) == ACCOUNTS[account]


@pytest.mark.parametrize(
    ("role", "expected"), [("cifarray-viewer", VIEWER), ("cifarray-submitter", SUBMITTER)]
)
def test_a_person_with_a_role_may_do_what_the_table_says_and_nothing_else(
    kubectl: Kubectl, applied: None, role: str, expected: set[tuple[str, str, str, str]]
):
    namespace = ("-n", NAMESPACE)
    kubectl(*namespace, "create", "rolebinding", "for-a-test", f"--role={role}", "--user=ana")
    try:
        assert rights(kubectl, "ana") == expected
    finally:
        kubectl(*namespace, "delete", "rolebinding", "for-a-test")
