"""Checks of a cluster itself: its API server, the caller's rights, KubeRay, Ray's versions."""

import re
from importlib import metadata

from cifarray.backends.base import Result, failed, passed, skipped
from cifarray.backends.kubernetes.client import RefusedError
from cifarray.backends.kubernetes.heads import TOKEN_KEY, token
from cifarray.backends.kubernetes.manifests import DEFAULT_OVERLAY, manifests
from cifarray.backends.kubernetes.operators import find_operators
from cifarray.backends.kubernetes.rayjob import RAY_VERSION
from cifarray.backends.kubernetes.site import HEAD_PATIENCE_S, Site
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError

LEAST_KUBERNETES = (1, 30)
ROLE = "cifarray-submitter"
KINDS = ("rayclusters", "rayjobs")
NEW_IN_1_7 = "preRunningDeadlineSeconds"
LEVEL = "pod-security.kubernetes.io/enforce"


def api_server(site: Site) -> Result:
    """It answers, and is not too old."""
    version = site.kube.version()
    found = f"Kubernetes {version} at {site.kube.server} (context {site.kube.context})"
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_KUBERNETES:
        return failed(found, "cifarray needs Kubernetes 1.30 or newer")
    return passed(f"{found}, client {metadata.version('kubernetes')}")


def rights(site: Site) -> Result:
    """The caller has every right of the Role that submitting needs."""
    wanted = [
        (verb, group, resource, name)
        for document in manifests(DEFAULT_OVERLAY)
        if document["kind"] == "Role" and document["metadata"]["name"] == ROLE
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", (None,))
        for verb in rule["verbs"]
    ]
    lacking = [
        f"{verb} {resource}" + (f" {name}" if name else "")
        for verb, group, resource, name in wanted
        if not site.kube.may(verb, group, resource, name)
    ]
    if lacking:
        return failed(
            f"you may not {', '.join(lacking)} in namespace {site.spec.namespace}",
            f"an administrator binds the Role: kubectl -n {site.spec.namespace} create rolebinding "
            f"NAME --role={ROLE} --user=YOU",
        )
    return passed(f"all {len(wanted)} of the Role {ROLE} in namespace {site.spec.namespace}")


def definitions(site: Site) -> Result:
    """KubeRay's kinds are known, with the fields that runs use."""
    remedy = "install KubeRay 1.7 or newer, its definitions too (Helm upgrades no definitions)"
    try:
        known = {each["name"] for each in site.kube.ask("GET", "/apis/ray.io/v1")["resources"]}
    except RefusedError as error:
        if error.code != 404:
            raise
        known = set()
    if missing := [kind for kind in KINDS if kind not in known]:
        return failed(f"the cluster knows no {' and no '.join(missing)} of ray.io/v1", remedy)
    try:
        found = site.kube.get("CustomResourceDefinition", "rayjobs.ray.io")
    except RefusedError as error:
        if error.code != 403:
            raise
        return passed("RayCluster and RayJob are known (their fields are not yours to read)")
    versions = {each["name"]: each for each in (found or {}).get("spec", {}).get("versions", ())}
    schema = versions.get("v1", {}).get("schema", {}).get("openAPIV3Schema", {})
    fields = schema.get("properties", {}).get("spec", {}).get("properties", {})
    if NEW_IN_1_7 not in fields:
        return failed(f"RayJob has no field {NEW_IN_1_7}: its definition is of before 1.7", remedy)
    return passed("RayCluster and RayJob are known, with the fields of 1.7")


def operator(site: Site) -> Result:
    """KubeRay's operator runs and is new enough."""
    found = find_operators(site.kube)
    if not found:
        return failed(
            "no pod of KubeRay's operator runs in any namespace",
            "install KubeRay's operator 1.7 or newer, as docs/kubernetes.md says",
        )
    first = found[0]
    where = f"{first.image} in namespace {first.namespace}"
    if not first.ready:
        return failed(
            f"{where} is not ready", f"see `kubectl -n {first.namespace} describe pod {first.pod}`"
        )
    if first.too_old:
        return failed(f"{where} is of before 1.7", "install KubeRay's operator 1.7 or newer")
    return passed(where if first.version else f"{where} (its version does not show)")


def pod_security(site: Site) -> Result:
    """The namespace admits none but restricted pods."""
    found = site.kube.get("Namespace", site.spec.namespace)
    name = site.spec.namespace
    if found is None:
        return failed(f"there is no namespace {name}", "make it with `cifarray cluster up`")
    level = (found["metadata"].get("labels") or {}).get(LEVEL)
    if level != "restricted":
        return failed(
            f"namespace {name} enforces {level or 'no level'}",
            f"kubectl label namespace {name} {LEVEL}=restricted --overwrite",
        )
    return passed(f"namespace {name} enforces {level}")


def ray_versions(site: Site) -> Result:
    """This Python, the RayCluster and the RayJobs that are made have one version of Ray."""
    versions = {"this Python": metadata.version("ray"), "RayJobs made here": RAY_VERSION}
    if site.ray_cluster is not None:
        named = f"RayCluster {site.spec.ray_cluster}"
        versions[named] = str(site.ray_cluster["spec"].get("rayVersion") or "unknown")
        if site.head_is_ready:
            versions[f"{named}'s head"] = str(site.head.version().get("ray_version"))
    told = ", ".join(f"{version} in {place}" for place, version in versions.items())
    if len(set(versions.values())) > 1:
        return failed(
            f"Ray {told}",
            "use an image and a Python with one version of Ray: `make image` builds one, "
            "constraints.txt names the version",
        )
    return passed(f"Ray {told}")


def auth_token(site: Site) -> Result:
    """The Ray clusters' token is there, and the head wants it."""
    secret = site.spec.store_secret
    if token(site.kube, site.spec) is None:
        return failed(
            f"Secret {secret} has no {TOKEN_KEY}",
            "`cifarray cluster up` runs the Job that makes it; with a store outside the cluster, "
            "make the Secret as docs/kubernetes.md says",
        )
    if not site.head_is_ready:
        return passed(f"in Secret {secret} (no head is ready that could be asked)")
    site.head.version()
    shared = f"RayCluster {site.spec.ray_cluster}"
    try:
        RayJobs(site.head.dashboard, None, HEAD_PATIENCE_S).version()
    except ClusterError as error:
        if not any(code in str(error) for code in ("HTTP 401", "HTTP 403")):
            raise
        return passed(f"in Secret {secret}; {shared} takes it and wants it")
    return failed(
        f"{shared} answers without a token",
        "set spec.authOptions.mode to token, as `cifarray cluster up` does",
    )


def pull_secret(site: Site) -> Result:
    """The Secret that the profile names for its registry is one."""
    name = site.spec.image_pull_secret
    if name is None:
        return skipped("the profile names none: nodes pull the image without")
    found = site.kube.get("Secret", name)
    if found is None:
        return failed(
            f"there is no Secret {name} in namespace {site.spec.namespace}",
            f"kubectl -n {site.spec.namespace} create secret docker-registry {name} ...",
        )
    if ".dockerconfigjson" not in (found.get("data") or {}):
        return failed(
            f"Secret {name} is of type {found.get('type')}, which holds no registry's keys",
            "make it with `kubectl create secret docker-registry`",
        )
    return passed(f"Secret {name}")
