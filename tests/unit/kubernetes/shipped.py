"""All manifests that the project ships or makes: overlays, components, RayJobs of the profiles."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cifarray.backends.kubernetes.rayjob import rayjob, run_policy
from cifarray.spec.load import load_job, load_profile, profile_names
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunRequest

Manifest = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[3]
K8S = REPOSITORY / "k8s"
OVERLAYS = ("local", "gpu", "external-s3")
COMPONENTS = ("kueue", "monitoring")
PROFILES = {"gpu": "kubernetes", "external-s3": "kubernetes", "local": "kubernetes-local"}
"""The profile whose runs an overlay's quota is for."""
RUN_A, RUN_B = "tune-digits-261123-040000-1a2b", "tune-digits-261123-050000-3c4d"


def overlay(name: str) -> list[Manifest]:
    """An overlay's manifests as they are committed; the caller may change them."""
    return _read(K8S / "rendered" / f"{name}.yaml")


def component(name: str) -> list[Manifest]:
    """What a component adds to an overlay, with the images of the table."""
    folder = K8S / "components" / name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    added = [each for file in kustomization["resources"] for each in _read(folder / file)]
    for deployment in (each for each in added if each["kind"] == "Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            container["image"] += f":{table()[container['image']]}"
    return added


def everything(name: str) -> list[Manifest]:
    """An overlay with the RayJobs and policies of two runs and with monitoring."""
    asked = [request(PROFILES[name], run) for run in (RUN_A, RUN_B)]
    runs = [make(each, 1) for each in asked for make in (rayjob, run_policy)]
    return [*overlay(name), *component("monitoring"), *runs]


def kubernetes_profiles() -> list[str]:
    """The shipped profiles of clusters on Kubernetes."""
    return [name for name in profile_names() if load_profile(name).kind == "kubernetes"]


def request(profile: str | Profile, run_id: str = RUN_A) -> RunRequest:
    """A sweep that is asked for on a shipped profile, or on one of the caller's."""
    return RunRequest(
        run_id=run_id,
        job=load_job("tune-digits"),
        profile=load_profile(profile) if isinstance(profile, str) else profile,
        submitted_at="2026-11-23T04:00:00+00:00",
        versions={"cifarray": "0.1.0", "ray": "2.60.0"},
    )


@cache
def table() -> dict[str, str]:
    """What stands behind the name of each image: its tag, and its digest where it is known."""
    path = K8S / "components" / "images" / "kustomization.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["images"]
    return {
        each["name"]: each["newTag"] + (f"@{each['digest']}" if each["digest"] else "")
        for each in entries
    }


def _read(path: Path) -> list[Manifest]:
    documents = yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return [each for each in documents if each]
