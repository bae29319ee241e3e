"""Whether what was applied has come up: store, bucket, RayCluster; and what they wait for."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.manifests import Manifest
from cifarray.backends.kubernetes.waiting import explain
from cifarray.errors import ClusterError

READY_S = 1200.0
"""A node may have to pull an image of several GB first."""
PAUSE_S = 2.0
LOG_LINES = 20


@dataclass(frozen=True)
class Part:
    """One thing that is waited for."""

    name: str
    state: str
    """In words."""
    ready: bool = False
    failed: bool = False


def await_ready(
    kube: Kube,
    documents: Sequence[Manifest],
    say: Callable[[str], None],
    patience_s: float = READY_S,
) -> None:
    """Wait until everything that comes up has, telling of each change. Raises: ClusterError."""
    awaited = [each for each in documents if each["kind"] in LOOKS]
    deadline = time.monotonic() + patience_s
    told: dict[str, str] = {}
    while True:
        parts = [look(kube, each) for each in awaited]
        for part in parts:
            gist = part.state.partition(": ")[0]  # what follows differs from one look to the next
            if told.get(part.name) != gist:
                told[part.name] = gist
                say(f"{part.name}: {part.state}")
        for part in parts:
            if part.failed:
                raise ClusterError(f"{part.name} failed: {part.state}")
        waiting = [part for part in parts if not part.ready]
        if not waiting:
            return
        if time.monotonic() >= deadline:
            states = "; ".join(f"{part.name}: {part.state}" for part in waiting)
            raise ClusterError(
                f"not ready after {patience_s:.0f} s: {states}; what was applied stays, and the "
                "same command goes on waiting"
            )
        time.sleep(PAUSE_S)


def look(kube: Kube, document: Manifest) -> Part:
    """How something that was applied does."""
    kind, name = document["kind"], document["metadata"]["name"]
    return LOOKS[kind](kube, f"{kind} {name}", kube.get(kind, name))


def head_of_another_image(kube: Kube, document: Manifest) -> str:
    """A sentence, where a RayCluster's head still runs another image than its manifest says.

    KubeRay replaces no running pod of a RayCluster that was changed.
    """
    name = document["metadata"]["name"]
    wanted = document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    labels = {"ray.io/cluster": name, "ray.io/node-type": "head"}
    for pod in kube.list("Pod", labels):
        runs = pod["spec"]["containers"][0]["image"]
        if runs != wanted:
            return (
                f"RayCluster {name}: its head still runs {runs}; when no run needs it, "
                f"`kubectl -n {kube.namespace} delete pod {pod['metadata']['name']}` brings one "
                f"of {wanted}"
            )
    return ""


def _deployment(kube: Kube, name: str, live: Mapping[str, Any] | None) -> Part:
    if live is None:
        return Part(name, "it is gone", failed=True)
    status, wanted = live.get("status") or {}, live["spec"].get("replicas", 1)
    seen = status.get("observedGeneration") == live["metadata"]["generation"]
    up = min(status.get("availableReplicas", 0), status.get("updatedReplicas", 0))
    if seen and up >= wanted:
        return Part(name, "ready", ready=True)
    refused = _condition(status, "ReplicaFailure")
    labels = live["spec"]["selector"]["matchLabels"]
    return Part(name, refused or explain(kube, labels, []) or "its pod is starting")


def _job(kube: Kube, name: str, live: Mapping[str, Any] | None) -> Part:
    if live is None:
        return Part(name, "done", ready=True)  # its time to live ended it, which takes an end
    status = live.get("status") or {}
    if _condition(status, "Complete") is not None:
        return Part(name, "done", ready=True)
    labels = {"batch.kubernetes.io/job-name": live["metadata"]["name"]}
    failed = _condition(status, "Failed")
    if failed is not None:
        said = _last_words(kube, labels)
        return Part(name, f"{failed}; its pod said: {said}" if said else failed, failed=True)
    reason = explain(kube, labels, [live])
    return Part(name, reason or ("at work" if status.get("ready") else "its pod is starting"))


def _ray_cluster(kube: Kube, name: str, live: Mapping[str, Any] | None) -> Part:
    if live is None:
        return Part(name, "it is gone", failed=True)
    status, cluster = live.get("status") or {}, live["metadata"]["name"]
    if not status:
        return Part(name, "waits for KubeRay's operator to take it up")
    if live["spec"].get("suspend"):
        return Part(name, "it is suspended")
    if _condition(status, "HeadPodReady") is not None:
        return Part(name, "ready", ready=True)
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
    reason = explain(kube, labels, []) or _condition(status, "ReplicaFailure")
    return Part(name, reason or "its head is starting")


LOOKS: dict[str, Callable[[Kube, str, Mapping[str, Any] | None], Part]] = {
    "Deployment": _deployment,
    "Job": _job,
    "RayCluster": _ray_cluster,
}
"""Kinds that take a while to come up."""


def _condition(status: Mapping[str, Any], kind: str) -> str | None:
    """The message of a condition that holds; None where it does not."""
    for each in status.get("conditions") or ():
        if each["type"] == kind and each["status"] == "True":
            return str(each.get("message") or each.get("reason") or kind)
    return None


def _last_words(kube: Kube, labels: Mapping[str, str]) -> str:
    """The last line that a pod with these labels wrote."""
    with suppress(ClusterError):
        for pod in reversed(kube.list("Pod", labels)):
            container = pod["spec"]["containers"][0]["name"]
            lines = kube.log(pod["metadata"]["name"], container, LOG_LINES).split("\n")
            if said := [line.strip() for line in lines if line.strip()]:
                return said[-1]
    return ""
