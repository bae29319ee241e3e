"""The manifests shipped with cifarray: rendered from k8s/overlays, one file per overlay."""

import copy
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from cifarray.backends.kubernetes.pods import head_group, of_kubernetes, worker_group
from cifarray.digests import content_sha256
from cifarray.errors import InputError
from cifarray.spec.load import unknown_name
from cifarray.spec.profile import Profile

Manifest: TypeAlias = dict[str, Any]
DEFAULT_OVERLAY = "gpu"
CLUSTER_LABEL = "ray.io/cluster"
SHIPPED_NAMESPACE = "cifarray"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it, takes a tenth of the time."""
NAME_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
"""The end of a Job's name: a digest of its pod template, which cannot be changed."""


def overlay_names() -> list[str]:
    """The overlays that come with cifarray."""
    files = (entry.name for entry in _folder().iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def overlay_text(overlay: str) -> str:
    """An overlay's manifests as they were rendered. Raises: InputError for an unknown one."""
    if overlay not in overlay_names():
        raise InputError(unknown_name("overlay", overlay, overlay_names()))
    return (_folder() / f"{overlay}.yaml").read_text(encoding="utf-8")


def manifests(
    overlay: str,
    image: str | None = None,
    namespace: str = SHIPPED_NAMESPACE,
    pull_secret: str | None = None,
) -> list[Manifest]:
    """An overlay's objects, for another image, namespace or registry than it was rendered for.

    Raises: InputError for an unknown overlay.
    """
    found = [each for each in yaml.load_all(overlay_text(overlay), LOADER) if each]
    if image:
        found = with_image(found, image)
    if namespace != SHIPPED_NAMESPACE:
        found = in_namespace(found, namespace)
    if pull_secret:
        for account in (each for each in found if each["kind"] == "ServiceAccount"):
            account["imagePullSecrets"] = [{"name": pull_secret}]
    return found


def for_profile(overlay: str, profile: Profile) -> list[Manifest]:
    """An overlay's objects adapted to a profile: its image, namespace, registry and store.

    Raises: InputError for an unknown overlay.
    """
    spec = of_kubernetes(profile)
    found = manifests(overlay, spec.image, spec.namespace, spec.image_pull_secret)
    for each in found:
        if each["kind"] == "ConfigMap" and "CIFARRAY_STORE" in each.get("data", {}):
            each["data"]["CIFARRAY_STORE"] = profile.store.uri
            each["data"].pop("AWS_ENDPOINT_URL_S3", None)
            if profile.store.endpoint:
                each["data"]["AWS_ENDPOINT_URL_S3"] = profile.store.endpoint
            if profile.store.region:
                each["data"]["AWS_REGION"] = profile.store.region
    return found


def with_pods_of(profile: Profile, documents: Sequence[Manifest]) -> list[Manifest]:
    """The objects with the profile's RayCluster: its name, and the pods that a run of it gets.

    Its workers are one group, which the autoscaler fills: as far as the overlay says, and at least
    to one run's size. The head keeps what the autoscaler in it needs, its account and its token.
    """
    spec = of_kubernetes(profile)
    (shipped,) = (each for each in documents if each["kind"] == "RayCluster")
    cluster, pod = shipped["spec"], shipped["spec"]["headGroupSpec"]["template"]
    labels = pod["metadata"]["labels"]
    head = head_group(profile, labels)
    taken = {each["name"] for each in head["template"]["spec"]["volumes"]}
    head["template"]["spec"]["volumes"] += [
        each for each in pod["spec"]["volumes"] if each["name"] not in taken
    ]
    head["template"]["spec"]["serviceAccountName"] = pod["spec"]["serviceAccountName"]
    name = "gpu" if profile.gpus_per_worker else "cpu"
    most = [
        each["maxReplicas"] for each in cluster["workerGroupSpecs"] if each["groupName"] == name
    ]
    changed = {
        "authOptions": {**cluster["authOptions"], "secretName": spec.store_secret},
        "headGroupSpec": head,
        "workerGroupSpecs": [worker_group(profile, labels, name, 0, max([profile.workers, *most]))],
    }
    metadata = {**shipped["metadata"], "name": spec.ray_cluster}
    ours = {**shipped, "metadata": metadata, "spec": {**cluster, **changed}}
    return [ours if each is shipped else _of_cluster(each, spec.ray_cluster) for each in documents]


def _of_cluster(value: Any, name: str) -> Any:
    """An object for a RayCluster of another name: what selects its pods, and who may scale it."""
    if isinstance(value, list):
        return [_of_cluster(each, name) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _of_cluster(inner, name) for key, inner in value.items()}
    if CLUSTER_LABEL in changed:
        changed[CLUSTER_LABEL] = name
    if "rayclusters" in changed.get("resources", ()) and "resourceNames" in changed:
        changed["resourceNames"] = [name]
    return changed


def as_yaml(documents: Iterable[Manifest]) -> str:
    """Objects as one YAML text that kubectl takes."""
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)


def with_image(documents: Sequence[Manifest], image: str) -> list[Manifest]:
    """The objects with this image instead of cifarray's, which is the one that Ray's head runs."""
    changed = copy.deepcopy(list(documents))
    (ours,) = {
        container["image"]
        for each in changed
        if each["kind"] == "RayCluster"
        for container in each["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    }
    for each in changed:
        for container in _containers(each):
            if container.get("image") == ours:
                container["image"] = image
        if each["kind"] == "Job":
            each["metadata"]["name"] = job_name(each)
    return changed


def in_namespace(documents: Sequence[Manifest], namespace: str) -> list[Manifest]:
    """The objects in another namespace than the one that they were rendered for."""
    changed = copy.deepcopy(list(documents))
    for each in changed:
        metadata = each["metadata"]
        if each["kind"] == "Namespace":
            metadata["name"] = namespace
        elif "namespace" in metadata:
            metadata["namespace"] = namespace
        for subject in each.get("subjects", ()):
            if "namespace" in subject:
                subject["namespace"] = namespace
    return changed


def job_name(job: Manifest) -> str:
    """A Job's name with a digest of its pod template: another template is another Job."""
    template = json.dumps(job["spec"]["template"], sort_keys=True)
    digest = content_sha256(template)[:8]
    return f"{NAME_SUFFIX.sub('', job['metadata']['name'])}-{digest}"


def _containers(value: Any) -> Iterator[dict[str, Any]]:
    """Every container in an object, wherever its pod templates lie."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("containers", "initContainers"):
                yield from inner
            yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def _folder() -> Traversable:
    """Inside the package in a wheel, next to its sources in a checkout."""
    inside = resources.files("cifarray") / "k8s"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "k8s" / "rendered"
