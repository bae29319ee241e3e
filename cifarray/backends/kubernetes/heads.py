"""The head of a Ray cluster on Kubernetes: its labels, its token, and the way to its dashboard."""

from collections.abc import Mapping

from cifarray.backends.kubernetes.access import decoded
from cifarray.backends.kubernetes.client import Kube
from cifarray.spec.profile import KubernetesSpec

HEAD = {"ray.io/node-type": "head"}
TOKEN_KEY = "auth_token"


def head_labels(cluster: str) -> dict[str, str]:
    """Labels of a Ray cluster's head."""
    return {"ray.io/cluster": cluster, **HEAD}


def token(kube: Kube, spec: KubernetesSpec) -> str | None:
    """The token of the namespace's Ray clusters."""
    return decoded(kube.get("Secret", spec.store_secret)).get(TOKEN_KEY)


def dashboard_command(namespace: str, labels: Mapping[str, str]) -> str:
    """How a person sees the dashboard of the head with these labels."""
    kubectl = f"kubectl -n {namespace}"
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    return f"{kubectl} port-forward $({kubectl} get pod -o name -l {selector}) 8265"
