"""`cluster up` on Kubernetes: server-side apply of every object, until all are ready."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cifarray.backends.base import Reporter
from cifarray.backends.kubernetes.client import Kube, RefusedError, condition, holds
from cifarray.backends.kubernetes.manifests import Manifest
from cifarray.backends.kubernetes.waiting import explain
from cifarray.errors import ClusterError
from cifarray.timers import Deadline

ORDER = (
    "Namespace",
    "PriorityClass",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "LimitRange",
    "ResourceQuota",
    "NetworkPolicy",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "Service",
    "Job",
    "Deployment",
    "PodDisruptionBudget",
    "RayCluster",
)
"""Kinds in the order of applying; kinds that are not listed come last."""
KUBECTL = "kubectl-client-side-apply"
"""The manager name of `kubectl apply`; a later `cluster up` takes over from it."""
SCALED = ".spec.workerGroupSpecs"
"""A list that is managed as a whole, although the autoscaler sets only `replicas` in it."""
SCALERS = {
    "python-requests": "Ray's autoscaler",
    "manager": "KubeRay's operator",
    "kuberay-operator": "KubeRay's operator",
}
MANAGER = re.compile(r'conflicts? with "([^"]+)"')
SHIPPED_PRIORITIES = {"cifarray-head": 1000, "cifarray-worker": 500}
"""Values of 0.1.0, which allowed evicting pods of other namespaces."""
READ_AGAIN = 10
ENDING_S = 180.0
READY_S = 1200.0
"""A node may first have to pull an image of several GB."""
PAUSE_S = 2.0
LOG_LINES = 20


@dataclass
class Applied:
    """What happened to the objects, each as `kind name`."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    """Sentences on fields that were taken over from another manager."""


def in_order(documents: Sequence[Manifest]) -> list[Manifest]:
    """The objects, what others need first."""
    places = {kind: place for place, kind in enumerate(ORDER)}
    return sorted(documents, key=lambda each: places.get(each["kind"], len(ORDER)))


def apply_all(
    kube: Kube, documents: Sequence[Manifest], say: Callable[[str], None], force: bool = False
) -> Applied:
    """Apply every object; `force` takes over fields from other managers.

    Raises: ClusterError if the operator's kinds are not known, where a right is lacking, or
    where somebody else manages a field that the manifests set otherwise.
    """
    if any(each["kind"] == "RayCluster" for each in documents):
        require_operators_kinds(kube)
    await_ended_namespace(kube, say)
    applied = Applied()
    for document in in_order(documents):
        _apply(kube, document, force, applied)
    for sentence in applied.settled:
        say(sentence)
    return applied


def set_up(kube: Kube, documents: Sequence[Manifest], force: bool, reporter: Reporter) -> Applied:
    """Apply objects and wait until what they make is ready. Raises: ClusterError."""
    try:
        applied = apply_all(kube, documents, reporter.say, force)
        reporter.say(
            f"{len(applied.created)} created, {len(applied.changed)} changed, "
            f"{len(applied.unchanged)} unchanged"
        )
        for name in applied.changed:
            reporter.detail(f"changed {name}")
        await_ready(kube, documents, reporter.say)
    except KeyboardInterrupt:
        reporter.say(
            "interrupted: what was applied stays, and the same command continues from there"
        )
        raise
    for document in documents:
        if document["kind"] == "RayCluster" and (left := head_of_another_image(kube, document)):
            reporter.warn(left)
    return applied


def require_operators_kinds(kube: Kube) -> None:
    """Raises: ClusterError if the cluster knows no RayCluster."""
    try:
        kube.ask("GET", "/apis/ray.io/v1")
    except RefusedError as error:
        if error.code != 404:
            raise
        raise ClusterError(
            f"{kube.context} has no RayCluster CRD; first install KubeRay's operator 1.7 or "
            "newer, as described in docs/kubernetes.md"
        ) from error


def await_ended_namespace(
    kube: Kube, say: Callable[[str], None], patience_s: float = ENDING_S
) -> None:
    """Wait while a namespace of this name is still being deleted. Raises: ClusterError."""
    told = False
    for _ in Deadline(patience_s).looks(1.0):
        try:
            found = kube.get("Namespace", kube.namespace)
        except RefusedError as error:
            if error.code == 403:  # without the right to read, applying shows it
                return
            raise
        if found is None or not found["metadata"].get("deletionTimestamp"):
            return
        if not told:
            say(f"namespace {kube.namespace} is still being deleted ...")
            told = True
        held = deletion_blockers(found)
    raise ClusterError(f"namespace {kube.namespace} is still being deleted: {held}")


def deletion_blockers(namespace: Manifest) -> str:
    """What a namespace that is being deleted still waits for."""
    conditions = namespace.get("status", {}).get("conditions", ())
    told = [
        str(each.get("message"))
        for each in conditions
        if each["status"] == "True" and each["type"].endswith("Remaining")
    ]
    return "; ".join(told) or "its content is deleted first"


def keep_scale(manifest: Manifest, live: Manifest) -> Manifest:
    """A RayCluster's manifest with the scale that the autoscaler has set in the live one.

    With the live one's version: should it be scaled in between, the server refuses.
    """
    groups = {group["groupName"]: group for group in live["spec"].get("workerGroupSpecs") or ()}
    specs = []
    for group in manifest["spec"]["workerGroupSpecs"]:
        now = groups.get(group["groupName"], {})
        kept = {name: now[name] for name in ("replicas", "scaleStrategy") if name in now}
        if "replicas" in kept:
            least, most = group.get("minReplicas", 0), group.get("maxReplicas", kept["replicas"])
            kept["replicas"] = max(least, min(most, kept["replicas"]))
        specs.append({**group, **kept})
    return {
        **manifest,
        "metadata": {
            **manifest["metadata"],
            "resourceVersion": live["metadata"]["resourceVersion"],
        },
        "spec": {**manifest["spec"], "workerGroupSpecs": specs},
    }


def _apply(kube: Kube, document: Manifest, force: bool, applied: Applied) -> None:
    kind, name = document["kind"], document["metadata"]["name"]
    try:
        for tries_left in reversed(range(READ_AGAIN)):
            live = kube.get(kind, name)
            if kind == "PriorityClass" and live and _is_another(document, live):
                if not _is_outdated(live):
                    applied.settled.append(_kept(live))
                    return
                kube.delete(kind, name)  # its value cannot be changed; pods keep what they have
            wanted = keep_scale(document, live) if live and kind == "RayCluster" else document
            try:
                made = _settled_apply(kube, wanted, live, force, applied)
                break
            except RefusedError as error:
                if error.reason != "Conflict" or error.causes or not tries_left:
                    raise  # otherwise it was changed since it was read
    except RefusedError as error:
        if error.code != 403:
            raise
        raise ClusterError(
            f"{kind} {name} may not be applied with your rights ({error.message}); `cifarray "
            "cluster up` needs an administrator of the cluster"
        ) from error
    if live is None:
        applied.created.append(f"{kind} {name}")
    elif live["metadata"].get("resourceVersion") == made["metadata"].get("resourceVersion"):
        applied.unchanged.append(f"{kind} {name}")
    else:
        applied.changed.append(f"{kind} {name}")


def _is_another(priority: Manifest, live: Manifest) -> bool:
    """Whether a PriorityClass differs in fields that cannot be changed."""
    return any(
        priority.get(name, usual) != live.get(name, usual)
        for name, usual in (("value", 0), ("preemptionPolicy", "PreemptLowerPriority"))
    )


def _is_outdated(live: Manifest) -> bool:
    """Whether a PriorityClass is as an older version of cifarray shipped it."""
    shipped = SHIPPED_PRIORITIES.get(live["metadata"]["name"])
    return live.get("value") == shipped and live.get("preemptionPolicy") != "Never"


def _kept(live: Manifest) -> str:
    policy = live.get("preemptionPolicy", "PreemptLowerPriority")
    return (
        f"PriorityClass {live['metadata']['name']}: kept as the administrator created it, with "
        f"value {live.get('value', 0)} and preemptionPolicy {policy}"
    )


def _settled_apply(
    kube: Kube, wanted: Manifest, live: Manifest | None, force: bool, applied: Applied
) -> dict[str, Any]:
    """Apply; a conflict is settled by force if that is known to be harmless."""
    try:
        return kube.apply(wanted, force)
    except RefusedError as error:
        if error.reason != "Conflict" or not error.causes:
            raise
        conflicts = [_conflict(cause) for cause in error.causes]
        what = f"{wanted['kind']} {wanted['metadata']['name']}"
        for manager, path in conflicts:
            if not _may_force(wanted, live, manager, path):
                raise ClusterError(
                    f"{what}: {path} is managed by {manager} and differs from the manifests; "
                    "undo that change, or take over the field with --force-conflicts"
                ) from error
    made = kube.apply(wanted, force=True)
    for manager in sorted({manager for manager, _ in conflicts}):
        paths = ", ".join(path for other, path in conflicts if other == manager)
        applied.settled.append(f"{what}: took {paths} over from {_who(manager, paths)}")
    return made


def _conflict(cause: dict[str, Any]) -> tuple[str, str]:
    """Manager and field of a conflict."""
    found = MANAGER.search(str(cause.get("message") or ""))
    return found[1] if found else "another manager", str(cause.get("field") or "a field")


def _may_force(wanted: Manifest, live: Manifest | None, manager: str, path: str) -> bool:
    if manager == KUBECTL:
        return True
    if wanted["kind"] != "RayCluster" or path != SCALED or live is None:
        return False
    # Either only defaults are missing, or the list was written as a whole by
    # a scaler, whose scale is kept.
    return manager in SCALERS or _holds(
        live["spec"]["workerGroupSpecs"], wanted["spec"]["workerGroupSpecs"]
    )


def _who(manager: str, paths: str) -> str:
    if manager == KUBECTL:
        return "`kubectl apply`"
    scaler = SCALERS.get(manager, manager)
    return f"{scaler}, keeping its scale" if SCALED in paths else scaler


def _holds(live: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there already."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return all(name in live and _holds(live[name], value) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(live) == len(wanted) and all(map(_holds, live, wanted))
    return bool(live == wanted)


@dataclass(frozen=True)
class Part:
    """One object that is waited for."""

    name: str
    state: str
    """Its state in words."""
    ready: bool = False
    failed: bool = False


def await_ready(
    kube: Kube,
    documents: Sequence[Manifest],
    say: Callable[[str], None],
    patience_s: float = READY_S,
) -> None:
    """Wait until everything is ready, and report each change. Raises: ClusterError."""
    awaited = [each for each in documents if each["kind"] in LOOKS]
    told: dict[str, str] = {}
    for _ in Deadline(patience_s).looks(PAUSE_S):
        parts = [look(kube, each) for each in awaited]
        for part in parts:
            gist = part.state.partition(": ")[0]  # what follows changes with every reading
            if told.get(part.name) != gist:
                told[part.name] = gist
                say(f"{part.name}: {part.state}")
        for part in parts:
            if part.failed:
                raise ClusterError(f"{part.name} failed: {part.state}")
        waiting = [part for part in parts if not part.ready]
        if not waiting:
            return
    states = "; ".join(f"{part.name}: {part.state}" for part in waiting)
    raise ClusterError(
        f"not ready after {patience_s:.0f} s: {states}; what was applied stays; run the "
        "same command to continue waiting"
    )


def look(kube: Kube, document: Manifest) -> Part:
    """The state of something that was applied."""
    kind, name = document["kind"], document["metadata"]["name"]
    return LOOKS[kind](kube, f"{kind} {name}", kube.get(kind, name))


def head_of_another_image(kube: Kube, document: Manifest) -> str:
    """A warning if a RayCluster's head still runs another image than its manifest says.

    KubeRay replaces no running pod of a RayCluster that was changed.
    """
    name = document["metadata"]["name"]
    wanted = document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    labels = {"ray.io/cluster": name, "ray.io/node-type": "head"}
    for pod in kube.list("Pod", labels):
        runs = pod["spec"]["containers"][0]["image"]
        if runs != wanted:
            return (
                f"RayCluster {name}: its head still runs image {runs}; when no run needs it, "
                f"`kubectl -n {kube.namespace} delete pod {pod['metadata']['name']}` starts one "
                f"with {wanted}"
            )
    return ""


def _deployment(kube: Kube, name: str, live: Mapping[str, Any] | None) -> Part:
    if live is None:
        return Part(name, "it no longer exists", failed=True)
    status, wanted = live.get("status") or {}, live["spec"].get("replicas", 1)
    seen = status.get("observedGeneration") == live["metadata"]["generation"]
    up = min(status.get("availableReplicas", 0), status.get("updatedReplicas", 0))
    if seen and up >= wanted:
        return Part(name, "ready", ready=True)
    refused = _said(live, "ReplicaFailure")
    labels = live["spec"]["selector"]["matchLabels"]
    return Part(name, refused or explain(kube, labels, []) or "its pod is starting")


def _job(kube: Kube, name: str, live: Mapping[str, Any] | None) -> Part:
    if live is None:
        return Part(
            name, "done", ready=True
        )  # its TTL removed it, which happens only after its end
    status = live.get("status") or {}
    if holds(live, "Complete"):
        return Part(name, "done", ready=True)
    labels = {"batch.kubernetes.io/job-name": live["metadata"]["name"]}
    if failed := _said(live, "Failed"):
        said = _last_log_line(kube, labels)
        return Part(
            name, f"{failed}; last line of its log: {said}" if said else failed, failed=True
        )
    reason = explain(kube, labels, [live])
    return Part(name, reason or ("running" if status.get("ready") else "its pod is starting"))


def _ray_cluster(kube: Kube, name: str, live: Mapping[str, Any] | None) -> Part:
    if live is None:
        return Part(name, "it no longer exists", failed=True)
    status, cluster = live.get("status") or {}, live["metadata"]["name"]
    if not status:
        return Part(name, "waits for KubeRay's operator")
    if live["spec"].get("suspend"):
        return Part(name, "it is suspended")
    if holds(live, "HeadPodReady"):
        return Part(name, "ready", ready=True)
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
    reason = explain(kube, labels, []) or _said(live, "ReplicaFailure")
    return Part(name, reason or "its head is starting")


LOOKS: dict[str, Callable[[Kube, str, Mapping[str, Any] | None], Part]] = {
    "Deployment": _deployment,
    "Job": _job,
    "RayCluster": _ray_cluster,
}
"""Kinds that take time to become ready."""


def _said(found: Mapping[str, Any], kind: str) -> str:
    """The message of a condition that is true; empty if it is not."""
    if not holds(found, kind):
        return ""
    told = condition(found, kind)
    return str(told.get("message") or told.get("reason") or kind)


def _last_log_line(kube: Kube, labels: Mapping[str, str]) -> str:
    """The last line that a pod with these labels wrote."""
    with suppress(ClusterError):
        for pod in reversed(kube.list("Pod", labels)):
            container = pod["spec"]["containers"][0]["name"]
            lines = kube.log(pod["metadata"]["name"], container, LOG_LINES).split("\n")
            if said := [line.strip() for line in lines if line.strip()]:
                return said[-1]
    return ""
