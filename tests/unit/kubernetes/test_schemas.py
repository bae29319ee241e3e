"""Every manifest is valid for the API server, with unknown fields refused."""

import copy
import json
from typing import Any

import kubernetes_validate
import pytest

from cifarray.backends.kubernetes.rayjob import rayjob, run_policy
from tests.unit.backends.kubernetes.kube_requests import profile
from tests.unit.kubernetes.ray_schemas import FILES, problems
from tests.unit.kubernetes.shipped import (
    COMPONENTS,
    OVERLAYS,
    component,
    kubernetes_profiles,
    overlay,
    request,
)

VERSIONS = ("1.30", "1.34")
"""The oldest Kubernetes that is supported, and one that the cluster's tests run on."""
NO_SCHEMA = ("monitoring.coreos.com/", "kueue.x-k8s.io/")
"""Kinds of operators whose resource definitions only the optional components need."""


def built_in(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of Kubernetes' own kinds."""
    return [
        each
        for each in manifests
        if each["kind"] not in FILES and not each["apiVersion"].startswith(NO_SCHEMA)
    ]


def own_runs(name: str) -> list[dict[str, Any]]:
    """The RayJob of a shipped profile, and its policy."""
    return [rayjob(request(name), 1), run_policy(request(name), 1)]


def all_manifests() -> list[dict[str, Any]]:
    """Each manifest that is shipped or made, once."""
    found = [each for name in OVERLAYS for each in overlay(name)]
    found += [each for name in COMPONENTS for each in component(name)]
    found += [each for name in kubernetes_profiles() for each in own_runs(name)]
    return list({json.dumps(each, sort_keys=True): each for each in found}.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_of_a_built_in_kind_is_valid(version: str):
    manifests = built_in(all_manifests())
    assert len(manifests) > 40
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_raycluster_of_an_overlay_is_valid(name: str):
    (cluster,) = (each for each in overlay(name) if each["kind"] == "RayCluster")
    assert problems(cluster) == []


@pytest.mark.parametrize("name", kubernetes_profiles())
def test_the_rayjob_of_a_shipped_profile_is_valid(name: str):
    assert problems(rayjob(request(name), 1)) == []


def test_a_rayjob_with_everything_that_a_profile_may_say_is_valid():
    asked = request(
        profile(
            gpus_per_worker=2.0,
            queue="cifarray",
            image_pull_secret="registry",
            node_selector={"pool": "gpus"},
            spot={"node-kind/spot": "true"},
            tolerations=[{"key": "dedicated", "operator": "Equal", "value": "ml"}],
        )
    )
    assert problems(rayjob(asked, 12)) == []


def test_a_misspelled_field_of_a_built_in_kind_is_found():
    manifest = copy.deepcopy(next(each for each in overlay("gpu") if each["kind"] == "Deployment"))
    manifest["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="container"):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("metadata",),
        ("spec",),
        ("spec", "autoscalerOptions"),
        ("spec", "headGroupSpec"),
        ("spec", "headGroupSpec", "template", "metadata"),
        ("spec", "headGroupSpec", "template", "spec"),
        ("spec", "headGroupSpec", "template", "spec", "containers", 0, "resources"),
        ("spec", "headGroupSpec", "template", "spec", "volumes", 0, "projected", "sources", 0),
        ("spec", "workerGroupSpecs", 0),
        ("spec", "workerGroupSpecs", 0, "template", "spec", "securityContext"),
    ],
)
def test_a_misspelled_field_of_a_raycluster_is_found(place: tuple[Any, ...]):
    cluster = next(each for each in overlay("gpu") if each["kind"] == "RayCluster")
    inner: Any = cluster
    for step in place:
        inner = inner[step]
    inner["misspelled"] = 1
    (problem,) = problems(cluster)
    assert "misspelled" in problem


def test_a_name_that_is_missing_is_found():
    manifest = rayjob(request("kubernetes"), 1)
    del manifest["metadata"]["name"]
    assert problems(manifest) == ["metadata: 'name' is a required property"]


def test_a_value_of_the_wrong_type_is_found():
    manifest = rayjob(request("kubernetes"), 1)
    manifest["spec"]["backoffLimit"] = "2"
    assert "backoffLimit" in problems(manifest)[0]
