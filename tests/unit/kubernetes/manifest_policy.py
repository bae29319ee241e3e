"""What manifests have to keep to as a set: that what they name is there, and how far rights go."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import yaml

from tests.unit.kubernetes.network import selects
from tests.unit.kubernetes.policy import SECRET_NAME, SECRET_VALUE
from tests.unit.kubernetes.ray_pods import Manifest, Pod, pods_of

Rule = Callable[[list[Manifest], list[Pod]], Iterator[str]]

NAMESPACE = "cifarray"
CLUSTER_WIDE = ("Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor")
BUILT_IN = re.compile(
    r"v1|apps/v1|batch/v1|policy/v1|networking\.k8s\.io/v1|scheduling\.k8s\.io/v1"
    r"|rbac\.authorization\.k8s\.io/v1"
)
GIVEN = {
    ("Secret", "cifarray-store"),  # the bootstrap Job makes it, or the administrator
    ("Secret", "cifarray-store-root"),  # the bootstrap Job makes it
    ("ConfigMap", "kube-root-ca.crt"),  # Kubernetes makes it in every namespace
}
"""What the manifests name without having it."""
REACHING = {"pods/exec", "pods/attach", "pods/ephemeralcontainers", "roles", "rolebindings"}
SOURCES = {
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
}
"""Where an environment variable may come from."""
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def kinds(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """Nothing needs a resource definition but KubeRay's."""
    for each in manifests:
        version = each["apiVersion"]
        if not BUILT_IN.fullmatch(version) and version != "ray.io/v1":
            yield f"{_where(each)} is of {version}"


def places(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """Each object is there once, in the namespace, under a name that Kubernetes takes."""
    seen = set()
    for each in manifests:
        metadata = each["metadata"]
        key = (each["kind"], metadata["name"])
        if key in seen:
            yield f"{_where(each)} is there twice"
        seen.add(key)
        if not DNS_1123.fullmatch(metadata["name"]):
            yield f"{_where(each)} has a name that Kubernetes refuses"
        wanted = None if each["kind"] in CLUSTER_WIDE else NAMESPACE
        if metadata.get("namespace") != wanted:
            yield f"{_where(each)} is in namespace {metadata.get('namespace')}"
        if metadata.get("labels", {}).get("app.kubernetes.io/part-of") != "cifarray":
            yield f"{_where(each)} does not say that it is part of cifarray"


def selectors(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """Whatever selects pods of the namespace selects at least one."""
    for each in manifests:
        for what, selector in _selectors(each):
            if not any(selects(selector, pod.labels) for pod in pods):
                yield f"{_where(each)} has a {what} that matches no pod"


def ports(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """A port that something is sent to is a port of the pods that it is sent to."""
    for each in manifests:
        spec = each.get("spec", {})
        for selector, wanted in _targets(each["kind"], spec):
            for pod in (pod for pod in pods if selects(selector, pod.labels)):
                own = {port.get("name") for c in pod.containers for port in c.get("ports", ())}
                own |= {
                    port["containerPort"] for c in pod.containers for port in c.get("ports", ())
                }
                for port in wanted - own:
                    yield f"{_where(each)} names port {port}, which {pod.where} has not"


def references(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """Accounts, priorities, claims, Secrets and ConfigMaps that are named exist."""
    existing = {(each["kind"], each["metadata"]["name"]) for each in manifests} | GIVEN
    for pod in pods:
        for kind, name in _named(pod):
            if (kind, name) not in existing:
                yield f"{pod.where} names {kind} {name}, which is not there"
    for each in (each for each in manifests if each["kind"] == "RoleBinding"):
        named = [each["roleRef"], *each["subjects"]]
        for one in named:
            if (one["kind"], one["name"]) not in existing:
                yield f"{_where(each)} names {one['kind']} {one['name']}, which is not there"


def rights(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """No Role has a wildcard, sees every Secret, or can give itself more."""
    for each in (each for each in manifests if each["kind"] in ("Role", "ClusterRole")):
        for rule in each["rules"]:
            verbs, kinds_of = set(rule["verbs"]), set(rule["resources"])
            if "*" in verbs | kinds_of | set(rule["apiGroups"]):
                yield f"{_where(each)} has a wildcard"
            if "secrets" in kinds_of and verbs - {"create"} and not rule.get("resourceNames"):
                yield f"{_where(each)} may {' and '.join(sorted(verbs))} every Secret"
            if "secrets" in kinds_of and verbs & {"list", "watch", "delete", "update", "patch"}:
                yield f"{_where(each)} may do more to Secrets than to read and create them"
            if kinds_of & REACHING:
                yield f"{_where(each)} may reach into pods or give rights"
            if verbs & {"escalate", "bind", "impersonate"}:
                yield f"{_where(each)} may give itself more"


def plain_secrets(manifests: list[Manifest], pods: list[Pod]) -> Iterator[str]:
    """No Secret is written down, nor anything secret elsewhere."""
    for each in manifests:
        if each["kind"] == "Secret":
            yield f"{_where(each)} is a Secret in plain text"
        values = dict(each.get("data", {})) if each["kind"] == "ConfigMap" else {}
        if each["kind"] == "RayJob":
            values |= yaml.safe_load(each["spec"].get("runtimeEnvYAML", "{}")).get("env_vars", {})
            values["entrypoint"] = each["spec"].get("entrypoint", "")
        for name, value in values.items():
            if SECRET_NAME.search(name) or SECRET_VALUE.search(str(value)):
                yield f"{_where(each)} has {name} in plain text"


MANIFEST_RULES: dict[str, Rule] = {
    "kinds": kinds,
    "places": places,
    "selectors": selectors,
    "ports": ports,
    "references": references,
    "rights": rights,
    "plain secrets": plain_secrets,
}


def findings(manifests: Iterable[Manifest], leave_out: Iterable[str] = ()) -> list[str]:
    """What the manifests break as a set, a line each: rule, object, problem."""
    manifests = list(manifests)
    pods = pods_of(manifests)
    return [
        f"{name}: {problem}"
        for name, rule in MANIFEST_RULES.items()
        if name not in leave_out
        for problem in rule(manifests, pods)
    ]


def _where(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _selectors(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The selectors of an object that mean pods of the namespace."""
    kind, spec = manifest["kind"], manifest.get("spec", {})
    if kind == "Service":
        yield "selector", {"matchLabels": spec["selector"]}
    elif kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        yield "selector", spec["selector"]
    elif kind == "NetworkPolicy":
        yield "selector", spec["podSelector"]
        rules = [*spec.get("ingress", ()), *spec.get("egress", ())]
        peers = [peer for rule in rules for side in ("from", "to") for peer in rule.get(side, ())]
        for peer in peers:
            if "podSelector" in peer and "namespaceSelector" not in peer:
                yield "peer", peer["podSelector"]


def _targets(kind: str, spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], set[Any]]]:
    """Selectors, each with the ports that are asked of the pods that it selects."""
    if kind == "Service":
        wanted = {port.get("targetPort", port["port"]) for port in spec["ports"]}
        yield {"matchLabels": spec["selector"]}, wanted
    elif kind == "PodMonitor":
        yield spec["selector"], {end["port"] for end in spec["podMetricsEndpoints"]}
    elif kind == "NetworkPolicy":
        for rule in spec.get("ingress", ()):
            yield spec["podSelector"], {port["port"] for port in rule.get("ports", ())}
        for rule in spec.get("egress", ()):
            for peer in rule.get("to", ()):
                if set(peer) == {"podSelector"}:
                    wanted = {port["port"] for port in rule.get("ports", ())}
                    yield peer["podSelector"], wanted


def _named(pod: Pod) -> Iterator[tuple[str, str]]:
    """Kind and name of whatever a pod cannot start without."""
    yield "ServiceAccount", pod.spec.get("serviceAccountName", "default")
    if "priorityClassName" in pod.spec:
        yield "PriorityClass", pod.spec["priorityClassName"]
    for container in pod.containers:
        sources = [variable.get("valueFrom", {}) for variable in container.get("env", ())]
        for source in [*sources, *container.get("envFrom", ())]:
            for key, kind in SOURCES.items():
                if key in source:
                    yield kind, source[key]["name"]
    for volume in pod.spec.get("volumes", ()):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        for source in [volume, *volume.get("projected", {}).get("sources", ())]:
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"]
