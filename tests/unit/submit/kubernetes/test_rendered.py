"""The manifests that travel with cifarray, as they are and for another image or namespace."""

from typing import Any

import pytest
import yaml

from cifarray.errors import InputError
from cifarray.submit.kubernetes.rendered import (
    as_yaml,
    job_name,
    manifests,
    overlay_names,
    overlay_text,
    with_image,
)

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
