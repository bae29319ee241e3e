"""`cluster up` on Kubernetes: every object by server-side apply, in an order that works."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cifarray.backends.kubernetes.client import Kube, RefusedError
from cifarray.backends.kubernetes.manifests import Manifest
from cifarray.errors import ClusterError

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
"""What later kinds need comes first; kinds that are not named come last."""
KUBECTL = "kubectl-client-side-apply"
"""The manager that `kubectl apply` enters; `cluster up` after it means: from now on this way."""
SCALED = ".spec.workerGroupSpecs"
"""A list that has one manager as a whole, though the autoscaler sets only `replicas` in it."""
SCALERS = {
    "python-requests": "Ray's autoscaler",
    "manager": "KubeRay's operator",
    "kuberay-operator": "KubeRay's operator",
}
MANAGER = re.compile(r'conflicts? with "([^"]+)"')
SHIPPED_PRIORITIES = {"cifarray-head": 1000, "cifarray-worker": 500}
"""Values that 0.1.0 shipped, with the right to evict pods of other namespaces."""
READ_AGAIN = 10
ENDING_S = 180.0


@dataclass
class Applied:
    """What became of the objects: `kind name` each."""

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
    """Apply every object; `force` takes fields over from whoever manages them.

    Raises: ClusterError where the operator's kinds are not known, where a right is lacking, or
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


def require_operators_kinds(kube: Kube) -> None:
    """Raises: ClusterError where the cluster knows no RayCluster."""
    try:
        kube.ask("GET", "/apis/ray.io/v1")
    except RefusedError as error:
        if error.code != 404:
            raise
        raise ClusterError(
            f"{kube.context} knows no RayCluster; install KubeRay's operator 1.7 or newer first, "
            "as docs/kubernetes.md says"
        ) from error


def await_ended_namespace(
    kube: Kube, say: Callable[[str], None], patience_s: float = ENDING_S
) -> None:
    """Wait while a namespace of this name is still being deleted. Raises: ClusterError."""
    deadline = time.monotonic() + patience_s
    told = False
    while True:
        try:
            found = kube.get("Namespace", kube.namespace)
        except RefusedError as error:
            if error.code == 403:  # whoever may not look finds out by applying
                return
            raise
        if found is None or not found["metadata"].get("deletionTimestamp"):
            return
        if not told:
            say(f"namespace {kube.namespace} is still being deleted ...")
            told = True
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"namespace {kube.namespace} is still being deleted: {what_holds(found)}"
            )
        time.sleep(1.0)


def what_holds(namespace: Manifest) -> str:
    """What a namespace that is being deleted still waits for."""
    conditions = namespace.get("status", {}).get("conditions", ())
    told = [
        str(each.get("message"))
        for each in conditions
        if each["status"] == "True" and each["type"].endswith("Remaining")
    ]
    return "; ".join(told) or "its content goes first"


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
            f"{kind} {name} is not yours to apply ({error.message}); `cifarray cluster up` needs "
            "an administrator of the cluster"
        ) from error
    if live is None:
        applied.created.append(f"{kind} {name}")
    elif live["metadata"].get("resourceVersion") == made["metadata"].get("resourceVersion"):
        applied.unchanged.append(f"{kind} {name}")
    else:
        applied.changed.append(f"{kind} {name}")


def _is_another(priority: Manifest, live: Manifest) -> bool:
    """Whether a PriorityClass differs in what nobody may change."""
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
        f"PriorityClass {live['metadata']['name']}: kept as the administrator made it, with value "
        f"{live.get('value', 0)} and preemptionPolicy {policy}"
    )


def _settled_apply(
    kube: Kube, wanted: Manifest, live: Manifest | None, force: bool, applied: Applied
) -> dict[str, Any]:
    """Apply; a conflict is settled by force where that is known to hurt nobody."""
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
                    f"{what}: {path} is managed by {manager}, with another value than the "
                    "manifests have; undo that change, or take the field over with "
                    "--force-conflicts"
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
    # Either only defaults are missing from what is wanted, or the list was written as a whole by
    # somebody who scales, whose scale is kept.
    return manager in SCALERS or _holds(
        live["spec"]["workerGroupSpecs"], wanted["spec"]["workerGroupSpecs"]
    )


def _who(manager: str, paths: str) -> str:
    if manager == KUBECTL:
        return "`kubectl apply`"
    scaler = SCALERS.get(manager, manager)
    return f"{scaler}, with the scale that it has set" if SCALED in paths else scaler


def _holds(live: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there already."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return all(name in live and _holds(live[name], value) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(live) == len(wanted) and all(map(_holds, live, wanted))
    return bool(live == wanted)
