"""KubeRay's operator in a cluster: where it runs, which version, and whether it is ready."""

import re
from dataclasses import dataclass

from cifarray.backends.kubernetes.client import Kube

OPERATOR_LABELS = {"app.kubernetes.io/component": "kuberay-operator"}
"""Of its pods, in its Helm chart and in its kustomization alike."""
LEAST_VERSION = (1, 7)
VERSION = re.compile(r":v?(\d+)\.(\d+)(\.\d+)?")


@dataclass(frozen=True)
class Operator:
    """One pod of the operator."""

    namespace: str
    pod: str
    image: str
    ready: bool

    @property
    def version(self) -> str | None:
        """As the image's tag has it; None where the image is named by a digest alone."""
        found = VERSION.search(self.image)
        return found[0].lstrip(":v") if found else None

    @property
    def too_old(self) -> bool:
        """Whether it is certainly older than what run deadlines and resubmission need."""
        found = VERSION.search(self.image)
        return found is not None and (int(found[1]), int(found[2])) < LEAST_VERSION


def find_operators(kube: Kube) -> list[Operator]:
    """Its pods in all namespaces, ready ones first.

    Raises: RefusedError (403) for callers who may not list pods everywhere.
    """
    found = []
    for pod in kube.list("Pod", OPERATOR_LABELS, everywhere=True):
        conditions = pod.get("status", {}).get("conditions") or ()
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        found.append(Operator(metadata["namespace"], metadata["name"], container["image"], ready))
    return sorted(found, key=lambda each: not each.ready)
