"""`cluster down` on Kubernetes: ends runs first, then deletes what `cluster up` created."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cifarray.backends.base import CommandOutput, Reporter, Teardown
from cifarray.backends.kubernetes.client import Kube, Objects, RefusedError
from cifarray.backends.kubernetes.rayjob import OURS
from cifarray.backends.kubernetes.setup import deletion_blockers
from cifarray.backends.kubernetes.waiting import find_operators
from cifarray.backends.ray_jobs.backend import stop_jobs
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from cifarray.timers import Deadline

SWEPT = (
    "RayCluster",
    "Deployment",
    "Job",
    "PodMonitor",
    "PrometheusRule",
    "PodDisruptionBudget",
    "Service",
    "NetworkPolicy",
    "ConfigMap",
    "ResourceQuota",
    "LimitRange",
    "RoleBinding",
    "Role",
    "ServiceAccount",
)
"""Kinds that are always deleted, in this order."""
STORED = ("Secret", "PersistentVolumeClaim")
"""Kinds that are kept with the store: its keys and its volume."""
HELD = (
    "RayJob",
    "RayCluster",
    "Deployment",
    "Job",
    "PersistentVolumeClaim",
    "Secret",
    "ConfigMap",
)
"""Kinds that keep the namespace if somebody else created them."""
CLUSTERS_OWN = ("ConfigMap kube-root-ca.crt",)
"""What Kubernetes itself creates in every namespace."""
RUNS_END_S = 180.0
"""The grace of a run's pods, 120 s, and the operator's own time."""
ABSENT_S = 10.0
"""How long to wait for a finalizer if no operator runs that could remove it."""
NAMESPACE_END_S = 300.0
PAUSE_S = 1.0


@dataclass
class Found:
    """What a namespace contains of ours and of others."""

    rayjobs: list[str]
    clusters: list[str]
    claims: list[str]
    foreign: list[str]
    """`kind name` of what cifarray did not create."""
    exists: bool = True
    """Whether the namespace exists."""


@dataclass
class Removed:
    """What `cluster down` did."""

    ended: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def shown(self, stopped: list[str]) -> CommandOutput:
        """For programs and people; `stopped` are the jobs that were ended first."""
        lines = [f"ended RayJob {name}" for name in self.ended]
        lines += [f"deleted {name}" for name in self.deleted]
        lines += [f"kept {name}" for name in self.kept]
        if not self.deleted and not self.ended:
            lines.append("nothing of cifarray was found")
        kept = any(name.startswith("PersistentVolumeClaim") for name in self.kept)
        remark = "the store's volume is kept, with its keys; --delete-store deletes both"
        data = {**asdict(self), "stopped_jobs": stopped}
        return CommandOutput(data, lines, remarks=[remark] if kept else [])


def survey(kube: Kube) -> Found:
    """What the namespace contains. Raises: ClusterError."""
    held = {kind: [each for each in _listed(kube, kind) if not _is_owned(each)] for kind in HELD}
    ours = {kind: [_name(each) for each in found if _is_ours(each)] for kind, found in held.items()}
    others = [
        f"{kind} {_name(each)}"
        for kind, found in held.items()
        for each in found
        if not _is_ours(each)
    ]
    return Found(
        rayjobs=ours["RayJob"],
        clusters=ours["RayCluster"],
        claims=ours["PersistentVolumeClaim"],
        foreign=[name for name in others if name not in CLUSTERS_OWN],
        exists=kube.get("Namespace", kube.namespace) is not None,
    )


def planned(
    kube: Kube,
    what: str,
    found: Found,
    jobs: RayJobs | None,
    live: list[str],
    remove_finalizers: bool,
    reporter: Reporter,
) -> Teardown:
    """The end of all that was found, and of the jobs on the long-lived RayCluster."""
    goes = [f"RayJob {name}" for name in found.rayjobs] + [f"job {name}" for name in live]
    ends = f"ends {', '.join(goes)} and " if goes else ""
    whole = f"this {ends}{what}"
    claims = ", ".join(found.claims)

    def execute(delete_store: bool) -> CommandOutput:
        keep_store = bool(claims) and not delete_store
        try:
            if jobs:
                stop_jobs(jobs, live, reporter)
            removed = take_down(kube, found, keep_store, remove_finalizers, reporter.say)
        except KeyboardInterrupt:
            reporter.say(
                "interrupted: what was deleted stays deleted, and the same command continues "
                "from there"
            )
            raise
        return removed.shown(live)

    ask = f"delete the volume claim {claims} too, with every dataset and run in it?"
    refusal = f"{whole}; add --yes to do it"
    return Teardown(f"{whole}: continue?", refusal, execute, ask if claims else "")


def take_down(
    kube: Kube,
    found: Found,
    keep_store: bool,
    remove_finalizers: bool,
    say: Callable[[str], None],
    patience_s: float = RUNS_END_S,
) -> Removed:
    """End the runs, then remove the rest; the namespace only if nothing else is in it.

    Raises: ClusterError, which names the finalizers that block a RayJob.
    """
    removed = Removed()
    for kind, names in (("RayJob", found.rayjobs), ("RayCluster", found.clusters)):
        end_all(kube, kind, names, remove_finalizers, say, patience_s)
    removed.ended = list(found.rayjobs)
    kept_claims = found.claims if keep_store else []
    removed.kept += [f"PersistentVolumeClaim {name}" for name in kept_claims]
    removed.kept += found.foreign
    for kind in SWEPT if removed.kept else ():
        removed.deleted += _sweep(kube, kind)
    if removed.kept:
        if kept_claims:
            removed.kept += [f"Secret {_name(each)}" for each in _listed(kube, "Secret", OURS)]
        else:
            removed.deleted += [name for kind in STORED for name in _sweep(kube, kind)]
        removed.kept.append(f"Namespace {kube.namespace}")
    elif found.exists:
        _delete_namespace(kube, say)
        removed.deleted.append(f"Namespace {kube.namespace}")
    removed.deleted += _sweep_priorities(kube)
    return removed


def end_all(
    kube: Kube,
    kind: str,
    names: Iterable[str],
    remove_finalizers: bool,
    say: Callable[[str], None],
    patience_s: float,
) -> None:
    """Delete objects and wait until they are gone, which their finalizers may delay."""
    left = list(names)
    for name in left:
        say(f"ending {kind} {name} ...")
        kube.delete(kind, name)
    patience_s = min(patience_s, ABSENT_S) if left and _operator_is_absent(kube) else patience_s
    held = _wait_until_gone(kube, kind, left, patience_s)
    if held and remove_finalizers:
        for name, finalizers in held.items():
            say(f"{kind} {name}: removing {', '.join(finalizers)}, since no operator runs")
            kube.patch(kind, name, {"metadata": {"finalizers": None}})
        held = _wait_until_gone(kube, kind, list(held), patience_s)
    if held:
        holders = "; ".join(
            f"{kind} {name} is held by {', '.join(finalizers) or 'nothing visible'}"
            for name, finalizers in held.items()
        )
        raise ClusterError(
            f"{holders}; KubeRay's operator did not remove it within {patience_s:.0f} s: start "
            "the operator or look into its log and try again, or add --remove-finalizers"
        )


def _wait_until_gone(
    kube: Kube, kind: str, names: list[str], patience_s: float
) -> dict[str, list[str]]:
    """The finalizers of those that are still there at the end."""
    for _ in Deadline(patience_s).looks(PAUSE_S):
        found = {name: kube.get(kind, name) for name in names}
        left = {
            name: [str(each) for each in live["metadata"].get("finalizers") or ()]
            for name, live in found.items()
            if live is not None
        }
        if not left:
            break
    return left


def _operator_is_absent(kube: Kube) -> bool:
    """Whether certainly no operator runs."""
    try:
        return not any(each.ready for each in find_operators(kube))
    except RefusedError:
        return False


def _delete_namespace(
    kube: Kube, say: Callable[[str], None], patience_s: float = NAMESPACE_END_S
) -> None:
    say(f"deleting namespace {kube.namespace} and what is in it ...")
    kube.delete("Namespace", kube.namespace)
    for _ in Deadline(patience_s).looks(PAUSE_S):
        if (live := kube.get("Namespace", kube.namespace)) is None:
            return
        held = deletion_blockers(live)
    raise ClusterError(f"namespace {kube.namespace} still exists after {patience_s:.0f} s: {held}")


def _sweep(kube: Kube, kind: str) -> list[str]:
    names = [_name(each) for each in _listed(kube, kind, OURS)]
    return [f"{kind} {name}" for name in names if kube.delete(kind, name)]


def _sweep_priorities(kube: Kube) -> list[str]:
    """They belong to the whole cluster: other namespaces with cifarray need them too."""
    others = [_name(each) for each in kube.list("Namespace", OURS)]
    return [] if set(others) - {kube.namespace} else _sweep(kube, "PriorityClass")


def _listed(kube: Kube, kind: str, labels: dict[str, str] | None = None) -> Objects:
    """Objects of a kind; none where the cluster does not know it."""
    try:
        return kube.list(kind, labels)
    except RefusedError as error:
        if error.code == 404:
            return []
        raise


def _is_ours(found: Mapping[str, Any]) -> bool:
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in OURS.items())


def _is_owned(found: Mapping[str, Any]) -> bool:
    """Whether it is deleted with the object that owns it."""
    return bool(found["metadata"].get("ownerReferences"))


def _name(found: Mapping[str, Any]) -> str:
    return str(found["metadata"]["name"])
