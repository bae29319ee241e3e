"""The checks of a cluster: each passes, fails with a remedy, or is skipped for want of a right."""

from functools import partial
from typing import Any

import pytest

from cifarray.backends.base import FAILED, PASSED, SKIPPED, Check, Result
from cifarray.backends.kubernetes import checks as cluster
from cifarray.backends.kubernetes.backend import open_cluster
from cifarray.backends.kubernetes.checks import Site
from cifarray.backends.kubernetes.manifests import manifests
from cifarray.doctor.checks import run_checks
from tests.unit.backends.kubernetes.api_server import GROUPS, Answer, ApiServer, refusal
from tests.unit.backends.kubernetes.kube_requests import profile

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NAMESPACE = "/api/v1/namespaces/cifarray"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rayjobs.ray.io"
CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
LEVEL = "pod-security.kubernetes.io/enforce"


def looked(site: Site, look: Any) -> Result:
    """The result as `doctor` prints it."""
    (found,) = run_checks([Check("it", partial(look, site))])
    if found.result.outcome == FAILED:
        assert found.result.remedy or ";" in found.result.finding
    return found.result


def test_an_api_server_that_answers(site: Site) -> None:
    result = looked(site, cluster.api_server)
    assert result.outcome == PASSED
    assert "v1.34.0" in result.finding and "context tests" in result.finding


def test_an_api_server_that_is_too_old(api: ApiServer, site: Site) -> None:
    api.script("GET /version", Answer(200, {"gitVersion": "v1.29.4-gke.1"}))
    assert looked(site, cluster.api_server).remedy == "cifarray needs Kubernetes 1.30 or newer"


@pytest.mark.usefixtures("nowhere")
def test_no_kubeconfig_is_a_failed_check_and_no_error() -> None:
    result = looked(Site(open_cluster(profile())), cluster.api_server)
    assert result.outcome == FAILED and "set KUBECONFIG" in result.finding


def test_every_right_of_the_submitters_role_is_asked_for(api: ApiServer, site: Site) -> None:
    assert looked(site, cluster.rights).outcome == PASSED
    asked = [a.body["spec"]["resourceAttributes"] for a in api.asked if a.method == "POST"]
    rights = {(each["verb"], each["resource"], each.get("subresource")) for each in asked}
    assert {("create", "rayjobs", None), ("get", "pods", "portforward")} <= rights
    assert {each["name"] for each in asked if "name" in each} == {"cifarray-store"}


def test_a_scripted_refusal_of_one_right_names_it(api: ApiServer, site: Site) -> None:
    def refuse_creation(asked: Any) -> None:
        wanted = asked.body and asked.body["spec"]["resourceAttributes"]
        if wanted and (wanted["verb"], wanted["resource"]) == ("create", "rayjobs"):
            api.script(f"POST {REVIEWS}", Answer(201, {"status": {"allowed": False}}))

    api.on_request = refuse_creation
    result = looked(site, cluster.rights)
    assert result.finding == "you may not create rayjobs in namespace cifarray"
    assert "create rolebinding" in result.remedy


def schema(*fields: str) -> dict[str, Any]:
    properties = {"spec": {"properties": {name: {} for name in fields}}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": {"properties": properties}}}
    return {"versions": [version]}


@pytest.mark.parametrize(
    ("spec", "outcome"),
    [
        (schema("entrypoint", "preRunningDeadlineSeconds"), PASSED),
        (schema("entrypoint"), FAILED),
        ({"versions": []}, FAILED),
    ],
)
def test_the_definitions_have_to_be_of_1_7(
    api: ApiServer, site: Site, spec: dict[str, Any], outcome: str
) -> None:
    api.put(CRD, spec=spec)
    assert looked(site, cluster.definitions).outcome == outcome


def test_definitions_that_a_403_hides_are_at_least_seen_to_be_there(
    api: ApiServer, site: Site
) -> None:
    api.forbid(f"GET {CRD}")
    result = looked(site, cluster.definitions)
    assert result.outcome == PASSED and "you may not read" in result.finding


def test_a_cluster_without_kuberay(api: ApiServer, site: Site) -> None:
    api.script(f"GET {GROUPS}", refusal(404, "not found"))
    result = looked(site, cluster.definitions)
    assert result.outcome == FAILED and "no rayclusters and no rayjobs" in result.finding


def operator_pod(image: str, ready: str = "True") -> Answer:
    pod = {
        "metadata": {"name": "kuberay-operator-1", "namespace": "ray-system"},
        "spec": {"containers": [{"image": image}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }
    return Answer(200, {"metadata": {}, "items": [pod]})


@pytest.mark.parametrize(
    ("image", "ready", "outcome", "words"),
    [
        ("quay.io/kuberay/operator:v1.7.0", "True", PASSED, "ray-system"),
        ("quay.io/kuberay/operator:v1.7.0", "False", FAILED, "is not ready"),
        ("quay.io/kuberay/operator:v1.6.1", "True", FAILED, "older than 1.7"),
        ("registry:5000/operator:v1.10.0", "True", PASSED, "v1.10.0"),
        ("quay.io/kuberay/operator@sha256:ab", "True", PASSED, "version unknown"),
    ],
)
def test_the_operator_has_to_run_and_be_of_1_7(
    api: ApiServer, site: Site, image: str, ready: str, outcome: str, words: str
) -> None:
    api.script("GET /api/v1/pods", operator_pod(image, ready))
    result = looked(site, cluster.operator)
    assert (result.outcome, words in result.finding) == (outcome, True)


def test_no_operator_and_one_that_a_403_hides(api: ApiServer, site: Site) -> None:
    assert looked(site, cluster.operator).outcome == FAILED
    api.forbid("GET /api/v1/pods")
    result = looked(site, cluster.operator)
    assert result.outcome == SKIPPED and "a right that you do not have" in result.finding


@pytest.mark.parametrize(
    ("labels", "outcome"),
    [({LEVEL: "restricted"}, PASSED), ({LEVEL: "baseline"}, FAILED), ({}, FAILED)],
)
def test_the_namespace_has_to_be_restricted(
    api: ApiServer, site: Site, labels: dict[str, str], outcome: str
) -> None:
    assert looked(site, cluster.pod_security).finding == "namespace cifarray does not exist"
    api.put(NAMESPACE, metadata={"labels": labels})
    result = looked(site, cluster.pod_security)
    assert result.outcome == outcome
    assert outcome == PASSED or "kubectl label namespace cifarray" in result.remedy


@pytest.mark.parametrize(("version", "outcome"), [("2.60.0", PASSED), ("2.59.0", FAILED)])
def test_another_version_of_ray_is_named(
    api: ApiServer, site: Site, version: str, outcome: str
) -> None:
    (document,) = (each for each in manifests("gpu") if each["kind"] == "RayCluster")
    api.put(CLUSTER, spec={**document["spec"], "rayVersion": version})
    result = looked(site, cluster.ray_versions)
    assert result.outcome == outcome
    assert f"{version} in RayCluster cifarray" in result.finding


def test_the_token_has_to_be_in_the_secret(api: ApiServer, site: Site) -> None:
    assert "has no auth_token" in looked(site, cluster.auth_token).finding
    api.put(f"{NAMESPACE}/secrets/cifarray-store", data={"auth_token": "c2VjcmV0"})
    result = looked(site, cluster.auth_token)
    assert result.outcome == PASSED
    assert "no head is ready" in result.finding and "secret" not in result.finding


@pytest.mark.parametrize(
    ("data", "outcome"), [({".dockerconfigjson": "e30="}, PASSED), ({"password": "eA=="}, FAILED)]
)
def test_a_pull_secret_has_to_be_one(
    api: ApiServer, site: Site, data: dict[str, str], outcome: str
) -> None:
    assert looked(site, cluster.pull_secret).outcome == SKIPPED
    named = Site(open_cluster(profile(image_pull_secret="registry")))
    assert "has no Secret registry" in looked(named, cluster.pull_secret).finding
    api.put(f"{NAMESPACE}/secrets/registry", data=data)
    assert looked(named, cluster.pull_secret).outcome == outcome
