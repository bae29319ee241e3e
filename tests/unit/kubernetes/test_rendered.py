"""What is committed is what kustomize renders, and what `kubectl apply -f k8s/` takes."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import cifarray
from cifarray.backends.kubernetes.manifests import overlay_names
from scripts import manifests
from scripts.manifests import (
    FLAT,
    RENDERED,
    Image,
    as_text,
    kubectl_problem,
    render,
    sources_digest,
)
from tests.unit.kubernetes.shipped import COMPONENTS, K8S, OVERLAYS, component, overlay, table

STALE = "is stale; run: make manifests"


@pytest.fixture(scope="module")
def kubectl() -> None:
    """Skips where nothing renders."""
    if problem := kubectl_problem():
        pytest.skip(problem)


def sources_of(path: Path) -> str:
    """The digest of its sources that a rendered file names."""
    found = re.search(r"^# sources: ([0-9a-f]{64})$", path.read_text(), re.MULTILINE)
    assert found, f"{path} names no sources"
    return found[1]


def containers(value: Any) -> list[dict[str, Any]]:
    """Every container in a value."""
    if isinstance(value, list):
        return [found for each in value for found in containers(each)]
    if not isinstance(value, dict):
        return []
    own = [each for key in ("containers", "initContainers") for each in value.get(key, ())]
    return own + [found for each in value.values() for found in containers(each)]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_rendered_overlay_is_made_of_the_sources_that_are_here(name: str):
    assert sources_of(RENDERED / f"{name}.yaml") == sources_digest(), f"{name}.yaml {STALE}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_rendered_overlay_is_what_kustomize_makes_of_it(kubectl: None, name: str):
    text = (RENDERED / f"{name}.yaml").read_text(encoding="utf-8")
    assert text == as_text(name, render(name)), f"{name}.yaml {STALE}"


def test_what_kubectl_applies_is_the_overlay_with_gpus():
    files = [path for path in K8S.iterdir() if path.suffix in (".yaml", ".yml", ".json")]
    assert files == [FLAT]
    assert FLAT.read_text() == (RENDERED / "gpu.yaml").read_text(), f"{FLAT.name} {STALE}"


def test_every_overlay_is_rendered_and_found_by_the_commands():
    assert sorted(path.name for path in (K8S / "overlays").iterdir()) == sorted(OVERLAYS)
    assert overlay_names() == sorted(OVERLAYS) == sorted(manifests.OVERLAYS)


def test_a_changed_source_makes_other_sources(tmp_path: Path):
    before = sources_digest()
    for name in manifests.SOURCES:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for path in sorted((K8S / name).rglob("*.yaml")):
            copied = folder / path.relative_to(K8S / name)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    assert sources_digest(tmp_path) == before
    (tmp_path / "base" / "limits.yaml").write_text("changed")
    assert sources_digest(tmp_path) != before


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_others_need_comes_first(name: str):
    kinds = [each["kind"] for each in overlay(name)]
    assert kinds[0] == "Namespace"
    assert kinds[-1] == "RayCluster"
    pods = min(kinds.index(kind) for kind in kinds if kind in ("Deployment", "Job", "RayCluster"))
    first = {"ServiceAccount", "Role", "RoleBinding", "PriorityClass", "LimitRange", "ConfigMap"}
    assert {kind for kind in kinds[pods:]} & {*first, "ResourceQuota", "NetworkPolicy"} == set()


def test_cifarray_s_image_is_of_this_version():
    assert table()["cifarray"].partition("@")[0] == cifarray.__version__


@pytest.mark.parametrize("name", OVERLAYS)
def test_images_are_those_of_the_table(name: str):
    known = {f"{image}:{tag}" for image, tag in table().items()}
    assert {each["image"] for each in containers(overlay(name))} <= known


def test_an_external_store_leaves_nothing_of_the_one_in_the_cluster():
    text = yaml.safe_dump_all(overlay("external-s3"))
    for gone in ("7070", "versitygw", "store-root", "cifarray-bootstrap", "Job", "Deployment"):
        assert gone not in text
    (where,) = (each["data"] for each in overlay("external-s3") if each["kind"] == "ConfigMap")
    assert where["AWS_ENDPOINT_URL_S3"].startswith("https://")


def test_a_job_of_another_image_has_another_name(kubectl: None):
    def jobs(found: list[dict[str, Any]]) -> set[str]:
        return {each["metadata"]["name"] for each in found if each["kind"] == "Job"}

    ours, other = jobs(overlay("gpu")), jobs(render("gpu", image=Image("cifarray", "0.2.0")))
    assert len(ours | other) == 4
    assert {name[:-9] for name in ours} == {name[:-9] for name in other}


@pytest.mark.parametrize(
    "image",
    [
        Image("registry.example.org:5000/team/cifarray", "1.2.3"),
        Image("registry.example.org/cifarray", digest=f"sha256:{'0' * 64}"),
    ],
)
def test_another_image_is_cifarray_s_everywhere_and_nobody_else_s(kubectl: None, image: Image):
    found = containers(render("gpu", ["monitoring"], image))
    wanted = f"{image.name}:{image.tag}" if image.tag else f"{image.name}@{image.digest}"
    others = {each["image"] for each in found} - {wanted}
    assert others == {f"ghcr.io/versity/versitygw:{table()['ghcr.io/versity/versitygw']}"}
    assert sum(each["image"] == wanted for each in found) == 6


@pytest.mark.parametrize("name", OVERLAYS)
def test_components_come_on_top_of_any_overlay(kubectl: None, name: str):
    whole = render(name, COMPONENTS)
    dashboard = [each for each in whole if each["metadata"]["name"] == "cifarray-dashboard"]
    rest = [each for each in whole if each not in dashboard]
    added = [each for part in COMPONENTS for each in component(part)]
    assert rest[: -len(added)] == overlay(name)
    assert sorted(map(str, map(ordered, rest[-len(added) :]))) == sorted(
        map(str, map(ordered, added))
    )
    assert dashboard[0]["metadata"]["labels"]["grafana_dashboard"] == "1"


def ordered(value: Any) -> Any:
    """A value with its keys in one order, for comparing."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(each) for each in value] if isinstance(value, list) else copy.copy(value)


def test_metrics_carry_the_name_of_their_cluster():
    for monitor in (each for each in component("monitoring") if each["kind"] == "PodMonitor"):
        if "ray.io/node-type" not in monitor["spec"]["selector"]["matchLabels"]:
            continue
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["relabelings"] == [
                {
                    "sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"],
                    "targetLabel": "ray_io_cluster",
                }
            ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--image", "cifarray:latest"], "image 'cifarray:latest' names no exact version"),
        (["--show", "cloud"], "invalid choice: 'cloud'"),
    ],
)
def test_what_cannot_be_rendered_is_said_in_one_sentence(
    kubectl: None, options: list[str], sentence: str
):
    command = [sys.executable, "-m", "scripts.manifests", *options]
    ended = subprocess.run(command, cwd=K8S.parent, capture_output=True, text=True)
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_overlay_is_printed_with_components_and_nothing_is_written(kubectl: None):
    before = FLAT.stat().st_mtime_ns
    command = [sys.executable, "-m", "scripts.manifests", "--show", "local", "--with", "kueue"]
    ended = subprocess.run(command, cwd=K8S.parent, capture_output=True, text=True, check=True)
    assert list(yaml.load_all(ended.stdout, yaml.CSafeLoader)) == render("local", ["kueue"])
    assert FLAT.stat().st_mtime_ns == before
