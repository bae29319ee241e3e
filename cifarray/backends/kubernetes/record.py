"""What a run's status says of the Kubernetes cluster that it is on: enough to find it again."""

from typing import Any

from cifarray.backends.kubernetes.heads import HEAD, dashboard_command
from cifarray.backends.kubernetes.pods import of_kubernetes
from cifarray.backends.kubernetes.rayjob import RUN_LABEL, rayjob_name, run_label
from cifarray.spec.profile import KubernetesSpec
from cifarray.spec.run import RunRequest


def cluster_record(
    profile: str,
    spec: KubernetesSpec,
    context: str | None,
    dashboard: str,
    job_id: str | None,
) -> dict[str, Any]:
    """The record of a job; no secret. A driver does not know by which context people come."""
    section = spec.model_dump(mode="json", exclude_defaults=True, exclude={"context"})
    return {
        "profile": profile,
        "kind": "kubernetes",
        "address": f"namespace {spec.namespace}" + (f" of {context}" if context else ""),
        "dashboard": dashboard,
        "job_id": job_id,
        "own": False,
        "kubernetes": section | ({"context": context} if context else {}),
    }


def applied_record(asked: RunRequest) -> dict[str, Any]:
    """The record of a run whose RayJob somebody applied: `submit --dry-run` prints its first."""
    profile, spec = asked.profile, of_kubernetes(asked.profile)
    job_id = rayjob_name(asked.run_id, 1)
    return cluster_record(
        profile.name, spec, spec.context, dashboard_of_run(spec, asked.run_id), job_id
    )


def dashboard_of_run(spec: KubernetesSpec, run_id: str) -> str:
    """How a person sees the dashboard of a run's own cluster."""
    return dashboard_command(spec.namespace, {RUN_LABEL: run_label(run_id), **HEAD})
