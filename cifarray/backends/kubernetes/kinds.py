"""The kinds of object that cifarray makes or looks at, and where each lives in the API."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Where objects of a kind live in the API."""

    prefix: str
    plural: str
    namespaced: bool = True


KINDS: dict[str, Kind] = {
    "ConfigMap": Kind("/api/v1", "configmaps"),
    "CustomResourceDefinition": Kind(
        "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", False
    ),
    "Deployment": Kind("/apis/apps/v1", "deployments"),
    "Event": Kind("/api/v1", "events"),
    "Job": Kind("/apis/batch/v1", "jobs"),
    "LimitRange": Kind("/api/v1", "limitranges"),
    "LocalQueue": Kind("/apis/kueue.x-k8s.io/v1beta2", "localqueues"),
    "Namespace": Kind("/api/v1", "namespaces", False),
    "NetworkPolicy": Kind("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Node": Kind("/api/v1", "nodes", False),
    "PersistentVolumeClaim": Kind("/api/v1", "persistentvolumeclaims"),
    "Pod": Kind("/api/v1", "pods"),
    "PodDisruptionBudget": Kind("/apis/policy/v1", "poddisruptionbudgets"),
    "PodGroup": Kind("/apis/scheduling.x-k8s.io/v1alpha1", "podgroups"),
    "PodMonitor": Kind("/apis/monitoring.coreos.com/v1", "podmonitors"),
    "PriorityClass": Kind("/apis/scheduling.k8s.io/v1", "priorityclasses", False),
    "PrometheusRule": Kind("/apis/monitoring.coreos.com/v1", "prometheusrules"),
    "RayCluster": Kind("/apis/ray.io/v1", "rayclusters"),
    "RayJob": Kind("/apis/ray.io/v1", "rayjobs"),
    "ResourceQuota": Kind("/api/v1", "resourcequotas"),
    "Role": Kind("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": Kind("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "Secret": Kind("/api/v1", "secrets"),
    "SelfSubjectAccessReview": Kind(
        "/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", False
    ),
    "Service": Kind("/api/v1", "services"),
    "ServiceAccount": Kind("/api/v1", "serviceaccounts"),
}
