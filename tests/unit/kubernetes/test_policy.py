"""Everything that is shipped keeps to the policy, and each rule finds a manifest that breaks it."""

import copy
from typing import Any

import pytest

from cifarray.backends.kubernetes.rayjob import rayjob, run_policy
from tests.unit.kubernetes import manifest_policy, policy
from tests.unit.kubernetes.manifest_policy import MANIFEST_RULES
from tests.unit.kubernetes.policy import POD_RULES
from tests.unit.kubernetes.ray_pods import Manifest, pods_of
from tests.unit.kubernetes.shipped import (
    COMPONENTS,
    OVERLAYS,
    component,
    everything,
    kubernetes_profiles,
    overlay,
    request,
)

GONE = object()
POD = "spec>template>spec"
ONE = f"{POD}>containers>0"
HEAD = "spec>headGroupSpec>template>spec"
STORE = "Deployment cifarray-store"
RAY = "RayCluster cifarray"
AUTOSCALER = "spec>autoscalerOptions"
FREE = f"{ONE}>securityContext"
DEVICE = {"name": "d", "hostPath": {"path": "/dev"}}
OPEN_LOGIN = "https://user:hunter2@store"

POD_BREAKS: dict[str, list[tuple[str, str, Any]]] = {
    "restricted": [
        (STORE, f"{POD}>hostNetwork", True),
        (STORE, f"{POD}>hostPID", True),
        (STORE, f"{POD}>volumes>0", DEVICE),
        (STORE, f"{POD}>securityContext>sysctls", [{"name": "net.core.somaxconn", "value": "9"}]),
        (STORE, f"{POD}>securityContext>runAsNonRoot", GONE),
        (STORE, f"{POD}>securityContext>runAsUser", 0),
        (STORE, f"{POD}>securityContext>seccompProfile", {"type": "Unconfined"}),
        (STORE, f"{FREE}>runAsUser", 0),
        (STORE, f"{FREE}>allowPrivilegeEscalation", GONE),
        (STORE, f"{FREE}>privileged", True),
        (STORE, f"{FREE}>capabilities>add", ["SYS_PTRACE"]),
        (STORE, f"{FREE}>capabilities>drop", ["NET_RAW"]),
        (STORE, f"{FREE}>procMount", "Unmasked"),
        (STORE, f"{ONE}>ports>0>hostPort", 7070),
        (RAY, f"{AUTOSCALER}>securityContext", GONE),
        (RAY, "spec>workerGroupSpecs>0>template>spec>containers>0>securityContext", GONE),
    ],
    "read-only root": [
        (STORE, f"{FREE}>readOnlyRootFilesystem", False),
        (RAY, f"{AUTOSCALER}>securityContext>readOnlyRootFilesystem", GONE),
    ],
    "resources": [
        (STORE, f"{ONE}>resources>limits>memory", GONE),
        (STORE, f"{ONE}>resources>requests", GONE),
        (RAY, f"{AUTOSCALER}>resources", GONE),
    ],
    "no plain secrets": [
        (STORE, f"{ONE}>env>0", {"name": "ROOT_ACCESS_KEY", "value": "cifarray"}),
        (STORE, f"{ONE}>env>0", {"name": "STORE", "value": OPEN_LOGIN}),
        (STORE, f"{ONE}>args>0", OPEN_LOGIN),
    ],
    "images": [
        (STORE, f"{ONE}>image", "ghcr.io/versity/versitygw"),
        (STORE, f"{ONE}>image", "registry.example.org:5000/cifarray"),
        (STORE, f"{ONE}>image", "cifarray:latest"),
        (STORE, f"{ONE}>imagePullPolicy", "Always"),
        (RAY, f"{AUTOSCALER}>imagePullPolicy", "Always"),
    ],
    "volumes": [
        (STORE, f"{ONE}>volumeMounts>0>name", "other"),
        (STORE, f"{POD}>volumes>1>name", "other"),
        (STORE, f"{ONE}>volumeMounts>1>mountPath", "/data"),
        (RAY, f"{AUTOSCALER}>volumeMounts>0", GONE),
        (RAY, f"{HEAD}>volumes>1>emptyDir", {}),
    ],
    "probe ports": [(STORE, f"{ONE}>readinessProbe>httpGet>port", "http")],
    "no token": [
        (STORE, f"{POD}>automountServiceAccountToken", GONE),
        (RAY, f"{HEAD}>automountServiceAccountToken", True),
        (RAY, f"{HEAD}>containers>0>volumeMounts>0>name", "autoscaler-token"),
    ],
    "ray memory": [
        (RAY, f"{HEAD}>containers>0>volumeMounts>2", GONE),
        (RAY, f"{HEAD}>volumes>3>emptyDir>medium", GONE),
        (RAY, f"{HEAD}>volumes>3>emptyDir>sizeLimit", "6Gi"),
    ],
    "ends in time": [(RAY, f"{HEAD}>terminationGracePeriodSeconds", GONE)],
}
"""For each rule what breaks it: an object, a place in it, and what is put there."""

MANIFEST_BREAKS: dict[str, list[tuple[str, str, Any]]] = {
    "kinds": [(STORE, "apiVersion", "kueue.x-k8s.io/v1beta2")],
    "places": [
        ("Service cifarray-store", "metadata>namespace", "default"),
        ("Namespace cifarray", "metadata>namespace", "cifarray"),
        ("ServiceAccount cifarray-run", "metadata>name", "cifarray"),
        ("Service cifarray-store", "metadata>name", "Cifarray_store"),
        ("Service cifarray-store", "metadata>labels", GONE),
    ],
    "selectors": [
        ("Service cifarray-store", "spec>selector>app.kubernetes.io/name", "store"),
        (STORE, "spec>selector>matchLabels", {"app": "other"}),
        ("PodDisruptionBudget cifarray-head", "spec>selector>matchLabels>ray.io/cluster", "ray"),
        ("NetworkPolicy store", "spec>podSelector", {"matchLabels": {"app": "s3"}}),
        ("NetworkPolicy to-store", "spec>egress>0>to>0>podSelector>matchLabels>app", "s3"),
    ],
    "ports": [
        ("Service cifarray-store", "spec>ports>0>targetPort", "http"),
        ("NetworkPolicy store", "spec>ingress>0>ports>0>port", 9000),
        ("NetworkPolicy to-store", "spec>egress>0>ports>0>port", 9000),
        ("PodMonitor cifarray-workers", "spec>podMetricsEndpoints>0>port", "dash-metrics"),
    ],
    "references": [
        (STORE, f"{POD}>serviceAccountName", "nobody"),
        (STORE, f"{POD}>serviceAccountName", GONE),
        (STORE, f"{POD}>priorityClassName", "high"),
        (STORE, f"{POD}>volumes>0>persistentVolumeClaim>claimName", "store"),
        (STORE, f"{POD}>volumes>1>secret>secretName", "accounts"),
        (STORE, f"{ONE}>env>0>valueFrom>secretKeyRef>name", "root"),
        (RAY, f"{HEAD}>containers>0>envFrom>0>configMapRef>name", "store"),
        (RAY, "spec>authOptions>secretName", "token"),
        ("RoleBinding cifarray", "roleRef>name", "admin"),
        ("RoleBinding cifarray", "subjects>0>name", "default"),
    ],
    "rights": [
        ("Role cifarray-viewer", "rules>0>verbs>0", "*"),
        ("Role cifarray-viewer", "rules>0>resources>0", "secrets"),
        ("Role cifarray-bootstrap", "rules>1>resourceNames", GONE),
        ("Role cifarray-bootstrap", "rules>1>verbs", ["get", "delete"]),
        ("Role cifarray-submitter", "rules>0>resources>0", "pods/exec"),
        ("Role cifarray", "rules>0>verbs>0", "impersonate"),
    ],
    "plain secrets": [
        ("Service cifarray-store", "kind", "Secret"),
        ("ConfigMap cifarray-store", "data>AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("ConfigMap cifarray-store", "data>AWS_ENDPOINT_URL_S3", OPEN_LOGIN),
        (
            "RayJob tune-digits",
            "spec>entrypoint",
            f"python -m cifarray.driver --store {OPEN_LOGIN}",
        ),
        ("RayJob tune-digits", "spec>runtimeEnvYAML", "env_vars: {API_TOKEN: hunter2}"),
    ],
}


def broken(manifests: list[Manifest], which: str, place: str, value: Any) -> list[Manifest]:
    """The manifests with something else at a place in one object."""
    manifests = copy.deepcopy(manifests)
    found = [
        each for each in manifests if f"{each['kind']} {each['metadata']['name']}".startswith(which)
    ]
    assert found, f"there is no {which}"
    parent: Any = found[0]
    *steps, last = place.split(">")
    for step in steps:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    key = int(last) if isinstance(parent, list) else last
    if value is GONE:
        del parent[key]
    else:
        parent[key] = value
    return manifests


def breaks(table: dict[str, list[tuple[str, str, Any]]]) -> list[Any]:
    """One test case for each way to break a rule."""
    return [
        pytest.param(rule, which, place, value, id=f"{rule}: {which} {place}")
        for rule, cases in table.items()
        for which, place, value in cases
    ]


@pytest.fixture(scope="module")
def good() -> list[Manifest]:
    """The default overlay with monitoring and two runs."""
    return everything("gpu")


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_no_findings(name: str):
    manifests = overlay(name)
    assert policy.findings(pods_of(manifests)) == []
    assert manifest_policy.findings(manifests) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_with_components_and_runs_needs_no_more_than_their_resource_definitions(
    name: str,
):
    manifests = everything(name) + component("kueue")
    assert policy.findings(pods_of(manifests)) == []
    assert manifest_policy.findings(manifests, leave_out=["kinds"]) == []
    needed = {each.split(" is of ")[1] for each in manifest_policy.findings(manifests)}
    assert needed == {"monitoring.coreos.com/v1", "kueue.x-k8s.io/v1beta2"}


@pytest.mark.parametrize("profile", kubernetes_profiles())
def test_the_rayjobs_of_a_shipped_profile_have_no_findings(profile: str):
    asked = request(profile)
    manifests = [*overlay("gpu"), rayjob(asked, 1), run_policy(asked, 1)]
    assert policy.findings(pods_of(manifests)) == []
    assert manifest_policy.findings(manifests) == []


def test_components_change_nothing_that_an_overlay_has():
    overlays = {(each["kind"], each["metadata"]["name"]) for each in overlay("gpu")}
    added = [each for name in COMPONENTS for each in component(name)]
    assert added
    assert not overlays & {(each["kind"], each["metadata"]["name"]) for each in added}


def test_each_rule_has_something_that_breaks_it():
    assert set(POD_BREAKS) == set(POD_RULES)
    assert set(MANIFEST_BREAKS) == set(MANIFEST_RULES)


@pytest.mark.parametrize(("rule", "which", "place", "value"), breaks(POD_BREAKS))
def test_a_pod_that_breaks_a_rule_is_found(
    good: list[Manifest], rule: str, which: str, place: str, value: Any
):
    found = policy.findings(pods_of(broken(good, which, place, value)))
    assert any(finding.startswith(f"{rule}: {which}") for finding in found), found


@pytest.mark.parametrize(("rule", "which", "place", "value"), breaks(MANIFEST_BREAKS))
def test_a_manifest_that_breaks_a_rule_is_found(
    good: list[Manifest], rule: str, which: str, place: str, value: Any
):
    known = set(manifest_policy.findings(good))
    found = set(manifest_policy.findings(broken(good, which, place, value))) - known
    assert any(finding.startswith(f"{rule}: ") for finding in found), found


def test_the_rules_hold_for_pods_as_an_api_server_has_them(good: list[Manifest]):
    live = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{number}", "namespace": "cifarray", "labels": pod.labels},
            "spec": pod.spec,
        }
        for number, pod in enumerate(pods_of(good))
    ]
    assert policy.findings(pods_of(live)) == []
    live[-1]["spec"]["containers"][0]["image"] = "cifarray"
    found = policy.findings(pods_of(live))
    assert found and all(f"Pod pod-{len(live) - 1} " in finding for finding in found)
