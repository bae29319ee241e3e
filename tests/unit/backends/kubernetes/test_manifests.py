"""The manifests that travel with cifarray, as they are and for another image or namespace."""

from typing import Any

import pytest
import yaml

from cifarray.backends.kubernetes.manifests import (
    as_yaml,
    for_profile,
    job_name,
    manifests,
    overlay_names,
    overlay_text,
    with_image,
)
from cifarray.errors import InputError
from cifarray.spec.load import load_profile
from cifarray.spec.profile import StoreSpec

IMAGE = "registry.example/team/cifarray:1.2.3"
GATEWAY = "ghcr.io/versity/versitygw"


def images(documents: list[dict[str, Any]]) -> list[str]:
    lines = as_yaml(documents).splitlines()
    return [line.split("image: ")[1] for line in lines if "image: " in line]


def test_the_three_overlays_are_there_and_hold_objects() -> None:
    assert overlay_names() == ["external-s3", "gpu", "local"]
    for overlay in overlay_names():
        kinds = [each["kind"] for each in manifests(overlay)]
        assert kinds.count("Namespace") == kinds.count("RayCluster") == 1


def test_an_unknown_overlay_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown overlay 'locl'; choose from: external-s3, gpu"):
        overlay_text("locl")


def test_without_another_image_the_objects_are_the_texts() -> None:
    assert manifests("gpu") == list(yaml.safe_load_all(overlay_text("gpu")))


@pytest.mark.parametrize("overlay", ["external-s3", "gpu", "local"])
def test_another_image_takes_the_place_of_cifarrays_and_of_no_other(overlay: str) -> None:
    before, after = images(manifests(overlay)), images(manifests(overlay, IMAGE))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new == (old if old.startswith(GATEWAY) else IMAGE)


def test_a_job_is_named_after_its_template_so_that_another_image_is_another_job() -> None:
    shipped = [each for each in manifests("gpu") if each["kind"] == "Job"]
    changed = [each for each in manifests("gpu", IMAGE) if each["kind"] == "Job"]
    assert len(shipped) == 2
    for old, new in zip(shipped, changed, strict=True):
        assert job_name(old) == old["metadata"]["name"]
        assert job_name(new) == new["metadata"]["name"] != old["metadata"]["name"]
        assert old["metadata"]["name"][:-9] == new["metadata"]["name"][:-9]
    again = with_image(manifests("gpu", IMAGE), images(manifests("gpu"))[0])
    assert [each["metadata"]["name"] for each in again] == [
        each["metadata"]["name"] for each in manifests("gpu")
    ]


@pytest.mark.parametrize("overlay", ["external-s3", "gpu", "local"])
def test_another_namespace_is_meant_everywhere(overlay: str) -> None:
    moved = manifests(overlay, namespace="team-a")
    for each in moved:
        assert each["metadata"].get("namespace", "team-a") == "team-a"
        assert all(subject["namespace"] == "team-a" for subject in each.get("subjects", ()))
    (namespace,) = (each for each in moved if each["kind"] == "Namespace")
    assert namespace["metadata"]["name"] == "team-a"
    assert "namespace: cifarray\n" not in as_yaml(moved)


def test_a_registrys_secret_goes_to_every_account() -> None:
    accounts = [
        each for each in manifests("gpu", pull_secret="keys") if each["kind"] == "ServiceAccount"
    ]
    assert accounts
    assert all(each["imagePullSecrets"] == [{"name": "keys"}] for each in accounts)


def test_a_profile_s_store_is_where_the_pods_look_for_it() -> None:
    profile = load_profile("kubernetes")
    outside = profile.model_copy(
        update={"store": StoreSpec(uri="s3://ours/cifarray", endpoint="https://s3.ours.example")}
    )
    (location,) = (
        each["data"]
        for each in for_profile("external-s3", outside)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "cifarray-store"
    )
    assert location["CIFARRAY_STORE"] == "s3://ours/cifarray"
    assert location["AWS_ENDPOINT_URL_S3"] == "https://s3.ours.example"


@pytest.mark.parametrize("overlay", ["gpu", "local"])
def test_the_shipped_profiles_want_the_manifests_as_they_are(overlay: str) -> None:
    assert for_profile(overlay, load_profile("kubernetes")) == manifests(overlay)


def test_what_is_rendered_for_a_profile_is_in_its_namespace() -> None:
    profile = load_profile("kubernetes")
    assert profile.kubernetes is not None
    section = profile.kubernetes.model_copy(update={"namespace": "elsewhere"})
    documents = for_profile("gpu", profile.model_copy(update={"kubernetes": section}))
    assert {each["metadata"].get("namespace", "elsewhere") for each in documents} == {"elsewhere"}
