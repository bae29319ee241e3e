"""Checks of a Kubernetes cluster: its API server, rights and operator, and what pods need."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cifarray.backends.base import Check, Result, failed, passed, skipped
from cifarray.backends.kubernetes.access import TOKEN_KEY, head_labels, token
from cifarray.backends.kubernetes.client import Kube, RefusedError, holds
from cifarray.backends.kubernetes.manifests import DEFAULT_OVERLAY, manifests
from cifarray.backends.kubernetes.pods import (
    GPU,
    OBJECT_STORE,
    head_group,
    worker_group,
    worker_template,
)
from cifarray.backends.kubernetes.rayjob import RAY_VERSION
from cifarray.backends.kubernetes.waiting import find_operators
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from cifarray.spec.profile import KubernetesSpec, Profile
from cifarray.spec.quantity import amount, written_bytes

if TYPE_CHECKING:
    from cifarray.backends.kubernetes.backend import KubernetesBackend

HEAD_PATIENCE_S = 5.0
LEAST_KUBERNETES = (1, 30)
ROLE = "cifarray-submitter"
RAY_KINDS = ("rayclusters", "rayjobs")
NEW_IN_1_7 = "preRunningDeadlineSeconds"
SECURITY_LEVEL = "pod-security.kubernetes.io/enforce"
DRAIN_S = 30
"""How long `ray start --block` drains a node after SIGTERM."""
UPLOAD_S = 30
"""Minimum time for a checkpoint's upload after that."""
DEFAULT_GRACE_S = 30
RAYS_SHARE = Decimal("0.3")
"""Share of a node's memory that Ray's object store takes by default."""
DNS_PORT = 53
DNS_POLICY = "dns"
API = "API server"


@dataclass(frozen=True)
class Group:
    """Pods of one kind: a head, or the workers of a group."""

    name: str
    pod: dict[str, Any]
    """The spec of its template."""
    start: dict[str, str]
    """Parameters of `ray start`."""
    now: int
    most: int

    @staticmethod
    def of(name: str, found: Mapping[str, Any]) -> "Group":
        """A group of a RayCluster; there is one head, and each worker group states its size."""
        now, most = (found.get(each, 0) for each in ("replicas", "maxReplicas"))
        if "groupName" not in found:
            now = most = 1
        start = found.get("rayStartParams") or {}
        return Group(name, found["template"]["spec"], start, now, most)

    @property
    def container(self) -> dict[str, Any]:
        """The container that runs Ray."""
        first: dict[str, Any] = self.pod["containers"][0]
        return first


@dataclass
class Site:
    """A Kubernetes backend and the answers of its cluster."""

    backend: "KubernetesBackend"

    @property
    def profile(self) -> Profile:
        """What is checked against the cluster."""
        return self.backend.profile

    @property
    def spec(self) -> KubernetesSpec:
        """The profile's section."""
        return self.backend.spec

    @property
    def kube(self) -> Kube:
        """The namespace. Raises: ClusterError."""
        return self.backend.kube

    @cached_property
    def ray_cluster(self) -> dict[str, Any] | None:
        """The long-lived RayCluster; None if there is none. Raises: ClusterError."""
        return self.kube.get("RayCluster", self.spec.ray_cluster)

    @property
    def head_is_ready(self) -> bool:
        """Whether the RayCluster's head is ready."""
        return any(
            holds(pod, "Ready") for pod in self.kube.list("Pod", head_labels(self.spec.ray_cluster))
        )

    @cached_property
    def head(self) -> RayJobs:
        """The Jobs API of the RayCluster's head, with the namespace's token."""
        return self.backend.shared_jobs(HEAD_PATIENCE_S)

    def run_groups(self) -> list[Group]:
        """Head and workers of a run with a cluster of its own."""
        workers = self.profile.workers
        return [
            Group.of("a run's head", head_group(self.profile, {})),
            Group.of("a run's workers", worker_group(self.profile, {}, "workers", 0, workers)),
        ]

    def shared_groups(self) -> list[Group]:
        """Head and worker groups of the RayCluster; none if there is none."""
        if self.ray_cluster is None:
            return []
        spec, name = self.ray_cluster["spec"], f"RayCluster {self.spec.ray_cluster}"
        return [
            Group.of(f"{name}'s head", spec["headGroupSpec"]),
            *(
                Group.of(f"{name}'s group {group['groupName']}", group)
                for group in spec.get("workerGroupSpecs") or ()
            ),
        ]


def api_server(site: Site) -> Result:
    """The API server answers and is new enough."""
    version = site.kube.version()
    found = f"Kubernetes {version} at {site.kube.server} (context {site.kube.context})"
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_KUBERNETES:
        return failed(found, "cifarray needs Kubernetes 1.30 or newer")
    return passed(f"{found}, client {metadata.version('kubernetes')}")


def rights(site: Site) -> Result:
    """The caller has every right that submitting requires."""
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
            f"ask an administrator to bind the Role: kubectl -n {site.spec.namespace} create "
            f"rolebinding NAME --role={ROLE} --user=YOU",
        )
    return passed(f"all {len(wanted)} rights of the Role {ROLE} in namespace {site.spec.namespace}")


def definitions(site: Site) -> Result:
    """KubeRay's CRDs are known, with the fields that runs use."""
    remedy = "install KubeRay 1.7 or newer with its CRDs (Helm does not upgrade CRDs)"
    try:
        known = {each["name"] for each in site.kube.ask("GET", "/apis/ray.io/v1")["resources"]}
    except RefusedError as error:
        if error.code != 404:
            raise
        known = set()
    if missing := [kind for kind in RAY_KINDS if kind not in known]:
        return failed(f"the cluster has no {' and no '.join(missing)} of ray.io/v1", remedy)
    try:
        found = site.kube.get("CustomResourceDefinition", "rayjobs.ray.io")
    except RefusedError as error:
        if error.code != 403:
            raise
        return passed("RayCluster and RayJob exist (you may not read their fields)")
    versions = {each["name"]: each for each in (found or {}).get("spec", {}).get("versions", ())}
    schema = versions.get("v1", {}).get("schema", {}).get("openAPIV3Schema", {})
    fields = schema.get("properties", {}).get("spec", {}).get("properties", {})
    if NEW_IN_1_7 not in fields:
        return failed(f"RayJob has no field {NEW_IN_1_7}: its CRD is older than 1.7", remedy)
    return passed("RayCluster and RayJob exist, with the fields of 1.7")


def operator(site: Site) -> Result:
    """KubeRay's operator runs and is new enough."""
    found = find_operators(site.kube)
    if not found:
        return failed(
            "KubeRay's operator does not run in any namespace",
            "install KubeRay's operator 1.7 or newer, as docs/kubernetes.md says",
        )
    first = found[0]
    where = f"{first.image} in namespace {first.namespace}"
    if not first.ready:
        return failed(
            f"{where} is not ready", f"see `kubectl -n {first.namespace} describe pod {first.pod}`"
        )
    if first.too_old:
        return failed(f"{where} is older than 1.7", "install KubeRay's operator 1.7 or newer")
    return passed(where if first.version else f"{where} (version unknown)")


def pod_security(site: Site) -> Result:
    """The namespace admits only restricted pods."""
    found = site.kube.get("Namespace", site.spec.namespace)
    name = site.spec.namespace
    if found is None:
        return failed(f"namespace {name} does not exist", "create it with `cifarray cluster up`")
    level = (found["metadata"].get("labels") or {}).get(SECURITY_LEVEL)
    if level != "restricted":
        return failed(
            f"namespace {name} enforces {level or 'no level'}",
            f"kubectl label namespace {name} {SECURITY_LEVEL}=restricted --overwrite",
        )
    return passed(f"namespace {name} enforces {level}")


def ray_versions(site: Site) -> Result:
    """This Python, the RayCluster and new RayJobs have the same version of Ray."""
    versions = {"this Python": metadata.version("ray"), "RayJobs created here": RAY_VERSION}
    if site.ray_cluster is not None:
        named = f"RayCluster {site.spec.ray_cluster}"
        versions[named] = str(site.ray_cluster["spec"].get("rayVersion") or "unknown")
        if site.head_is_ready:
            versions[f"{named}'s head"] = str(site.head.version().get("ray_version"))
    told = ", ".join(f"{version} in {place}" for place, version in versions.items())
    if len(set(versions.values())) > 1:
        return failed(
            f"Ray {told}",
            "use the same version of Ray in the image and in this Python: `make image` builds "
            "an image, constraints.txt names the version",
        )
    return passed(f"Ray {told}")


def auth_token(site: Site) -> Result:
    """The Ray clusters' token exists, and the head requires it."""
    secret = site.spec.store_secret
    if token(site.kube, site.spec) is None:
        return failed(
            f"Secret {secret} has no {TOKEN_KEY}",
            "`cifarray cluster up` runs the Job that creates it; with a store outside the "
            "cluster, create the Secret as described in docs/kubernetes.md",
        )
    if not site.head_is_ready:
        return passed(f"in Secret {secret} (no head is ready to check it with)")
    site.head.version()
    shared = f"RayCluster {site.spec.ray_cluster}"
    try:
        RayJobs(site.head.dashboard, None, HEAD_PATIENCE_S).version()
    except ClusterError as error:
        if not any(code in str(error) for code in ("HTTP 401", "HTTP 403")):
            raise
        return passed(f"in Secret {secret}; {shared} accepts and requires it")
    return failed(
        f"{shared} answers without a token",
        "set spec.authOptions.mode to token, as `cifarray cluster up` does",
    )


def pull_secret(site: Site) -> Result:
    """The Secret that the profile names for its registry is a registry Secret."""
    name = site.spec.image_pull_secret
    if name is None:
        return skipped("the profile names none: nodes pull the image without one")
    found = site.kube.get("Secret", name)
    if found is None:
        return failed(
            f"namespace {site.spec.namespace} has no Secret {name}",
            f"kubectl -n {site.spec.namespace} create secret docker-registry {name} ...",
        )
    if ".dockerconfigjson" not in (found.get("data") or {}):
        return failed(
            f"Secret {name} is of type {found.get('type')}, which is not for a registry",
            "create it with `kubectl create secret docker-registry`",
        )
    return passed(f"Secret {name}")


def gpu_capacity(site: Site) -> Result:
    """The nodes that workers may use have enough GPUs for a whole run."""
    each = int(site.profile.gpus_per_worker)
    if not each:
        return skipped(f"workers of profile {site.profile.name} request no GPU")
    wanted = each * site.profile.workers
    selector = worker_template(site.profile, {})["spec"].get("nodeSelector") or {}
    sizes = [_gpus(node) for node in site.kube.list("Node", selector) if not _is_closed(node)]
    fitting = sum(size // each * each for size in sizes)
    among = f" among those labeled {_words(selector)}" if selector else ""
    if fitting < wanted:
        return failed(
            f"{sum(sizes)} GPUs on {sum(map(bool, sizes))} nodes{among}, but a run of "
            f"{site.profile.workers} workers needs {wanted}, {each} of them on one node",
            "add nodes (ignore this if the cluster adds them automatically), or lower workers "
            "in the profile",
        )
    return passed(
        f"{sum(sizes)} GPUs on {sum(map(bool, sizes))} nodes{among}, a run needs {wanted}"
    )


def quota(site: Site) -> Result:
    """A run of the profile's size fits into what is left of the namespace's quotas."""
    quotas = site.kube.list("ResourceQuota")
    if not quotas:
        return skipped(f"namespace {site.spec.namespace} has no quota")
    shared = site.backend.shared
    if shared and site.ray_cluster is None:
        return failed(
            f"RayCluster {site.spec.ray_cluster} does not exist", "`cifarray cluster up` creates it"
        )
    groups = site.shared_groups()[1:] if shared else site.run_groups()
    wanted = needs(groups, growth=shared)
    lacking, short = [], False
    for each in quotas:
        status = each.get("status") or {}
        for resource, hard in (status.get("hard") or each["spec"].get("hard") or {}).items():
            need = wanted.get(resource, Decimal(0))
            left = amount(hard) - amount((status.get("used") or {}).get(resource, "0"))
            if need > left:
                short = short or need > amount(hard)
                lacking.append(
                    f"{resource}: {need.normalize():f} needed, {left.normalize():f} left of {hard}"
                )
    what = "the RayCluster at its maximum" if shared else f"a run of {site.profile.workers} workers"
    if not lacking:
        return passed(f"the quota allows {what}")
    remedy = (
        "raise the quota, or use fewer or smaller pods in the profile"
        if short
        else ("wait until running jobs end (`cifarray cluster status`), or raise the quota")
    )
    return failed(f"the quota does not allow {what}: {'; '.join(lacking)}", remedy)


def dns(site: Site) -> Result:
    """Pods can use DNS although the namespace denies other outgoing traffic."""
    try:
        policies = site.kube.list("NetworkPolicy")
    except RefusedError as error:
        if error.code != 403:
            raise
        found = site.kube.get("NetworkPolicy", DNS_POLICY)  # the one policy that may be read
        policies = [found] if found else []
        if not policies:
            return failed(
                f"NetworkPolicy {DNS_POLICY} does not exist", "`cifarray cluster up` creates it"
            )
    out = [each for each in policies if _holds_all(each) and "Egress" in _types(each)]
    if not out:
        return passed("no policy of the namespace blocks DNS")
    for policy in out:
        if _allows_dns(policy):
            return passed(f"NetworkPolicy {policy['metadata']['name']} allows DNS")
    return failed(
        f"NetworkPolicy {out[0]['metadata']['name']} denies all outgoing traffic of all pods, "
        "and no policy allows DNS (port 53, UDP and TCP)",
        "`cifarray cluster up` creates the policy dns",
    )


def drain(site: Site) -> Result:
    """Terminating pods have time for Ray's drain and a checkpoint's upload."""
    least = DRAIN_S + UPLOAD_S
    graces = {
        group.name: int(group.pod.get("terminationGracePeriodSeconds") or DEFAULT_GRACE_S)
        for group in (*site.run_groups(), *site.shared_groups())
    }
    short = [f"{name} has {grace} s" for name, grace in graces.items() if grace < least]
    if short:
        return failed(
            f"{', '.join(short)} to terminate, but Ray's drain takes {DRAIN_S} s before a "
            "checkpoint is uploaded",
            f"set terminationGracePeriodSeconds to {least} or more; `cifarray cluster up` sets 120",
        )
    return passed(
        f"pods have {min(graces.values())} s or more to terminate, and Ray's drain takes "
        f"{DRAIN_S} s"
    )


def shared_memory(site: Site) -> Result:
    """Ray's object store fits into /dev/shm, and /dev/shm into the pod's memory."""
    problems = [
        trouble
        for group in (*site.run_groups(), *site.shared_groups())
        for trouble in _shm_problems(group)
    ]
    if problems:
        return failed(
            "; ".join(problems),
            "raise worker_shm, head_shm or the memory in the profile or in the RayCluster",
        )
    return passed("in every pod the object store fits into /dev/shm, and /dev/shm into the memory")


def needs(groups: Iterable[Group], growth: bool = False) -> dict[str, Decimal]:
    """What pods of these groups take of a quota; with `growth` only the pods to be added."""
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for group in groups:
        number = group.most - (group.now if growth else 0)
        total["pods"] += number
        for side in ("requests", "limits"):
            for resource, text in group.container["resources"].get(side, {}).items():
                total[f"{side}.{resource}"] += amount(text) * number
    plain = {name: total[f"requests.{name}"] for name in ("cpu", "memory")}
    return {**total, **plain, "count/pods": total["pods"]}


def _shm_problems(group: Group) -> list[str]:
    mounts = {each["mountPath"]: each["name"] for each in group.container.get("volumeMounts") or ()}
    volumes = {each["name"]: each for each in group.pod.get("volumes") or ()}
    shm = (volumes.get(mounts.get("/dev/shm", "")) or {}).get("emptyDir") or {}
    if shm.get("medium") != "Memory":
        return [f"{group.name} mounts no /dev/shm"]
    limit = (group.container["resources"].get("limits") or {}).get("memory")
    memory = amount(limit) if limit else None
    size = amount(shm["sizeLimit"]) if shm.get("sizeLimit") else memory
    if size is None:
        return []
    given = group.start.get(OBJECT_STORE)
    store = amount(given) if given else (memory or Decimal(0)) * RAYS_SHARE
    problems, held = [], f"{written_bytes(size, binary=True)} of /dev/shm"
    if store > size:
        problems.append(
            f"{group.name}: {written_bytes(store, binary=True)} of object store in {held}"
        )
    if memory is not None and size >= memory:
        problems.append(f"{group.name}: {held} in {written_bytes(memory, binary=True)} of memory")
    return problems


def _gpus(node: Mapping[str, Any]) -> int:
    return int((node["status"].get("allocatable") or {}).get(GPU, 0))


def _is_closed(node: Mapping[str, Any]) -> bool:
    return bool(node.get("spec", {}).get("unschedulable"))


def _words(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())


def _holds_all(policy: Mapping[str, Any]) -> bool:
    selector = policy["spec"].get("podSelector") or {}
    return not any(selector.values())


def _types(policy: Mapping[str, Any]) -> list[str]:
    spec = policy["spec"]
    return list(spec.get("policyTypes") or (["Ingress"] + ["Egress"] * ("egress" in spec)))


def _allows_dns(policy: Mapping[str, Any]) -> bool:
    allowed = {
        port.get("protocol", "TCP")
        for rule in policy["spec"].get("egress") or ()
        for port in rule.get("ports") or ({"port": DNS_PORT}, {"port": DNS_PORT, "protocol": "UDP"})
        if port.get("port", DNS_PORT) == DNS_PORT
    }
    return {"TCP", "UDP"} <= allowed


def cluster_checks(site: Site) -> list[Check]:
    """All checks, in order; the API server must answer before anything else is checked."""
    kinds = "KubeRay's CRDs"
    looks: list[tuple[str, Callable[[Site], Result], str | None]] = [
        (API, api_server, None),
        ("rights", rights, API),
        (kinds, definitions, API),
        ("KubeRay's operator", operator, API),
        ("Pod Security", pod_security, API),
        ("Ray versions", ray_versions, kinds),
        ("token", auth_token, API),
        ("pull secret", pull_secret, API),
        ("GPUs", gpu_capacity, API),
        ("quota", quota, API),
        ("DNS", dns, API),
        ("drain", drain, kinds),
        ("shared memory", shared_memory, kinds),
    ]
    return [Check(name, partial(look, site), needs) for name, look, needs in looks]
