"""One namespace of a Kubernetes cluster, spoken to through the official client.

Objects are plain dicts as kubectl prints them. Every failure is a ClusterError of one sentence.

An answer is unclear if it does not say whether the request was executed: a 5xx, a timeout, a cut
connection. After one, `create` checks whether the object exists and carries this request's mark,
`delete` counts a missing object as deleted, and requests that may be repeated are sent again.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from cifarray.backends.base import PATIENCE_S, PAUSES_S
from cifarray.errors import ClusterError
from cifarray.spec.profile import KubernetesSpec
from cifarray.timers import Deadline, pauses

CONNECT_S, READ_S = 5.0, 30.0
FIELD_MANAGER = "cifarray"
UNDONE = 429
"""The request had no effect and may be retried."""
UNCLEAR = (500, 502, 503, 504)
"""The server, or a proxy before it, failed: the request may have had an effect or not."""
MARK = "cifarray/request"
"""Annotation of every object that `create` creates, with a different value for each call."""
PAGE = "500"
Objects: TypeAlias = list[dict[str, Any]]
"""An alias, because inside Kube `list` is a method."""
Look: TypeAlias = Callable[[], str | None]
"""Decides after an unclear answer: the text that settles it, or None to send the request again."""


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


def kubeconfig() -> str:
    """Its file, or several with the system's separator.

    The client library reads the variable when it is first imported, which may be long ago.
    """
    from kubernetes import config

    return os.environ.get("KUBECONFIG") or str(config.KUBE_CONFIG_DEFAULT_LOCATION)


def load_context(settings: Any, wanted: str | None) -> str:
    """Fill a client's settings from a context, or from the current one; its name.

    Raises: ClusterError.
    """
    import yaml
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    file = kubeconfig()
    try:
        context = wanted or str(config.list_kube_config_contexts(file)[1]["name"])
        config.load_kube_config(file, context, settings)
    except (ConfigException, yaml.YAMLError, OSError, KeyError, TypeError) as error:
        named = f" with a context {wanted}" if wanted else ""
        told = " ".join(str(error).split()).rstrip(".")
        raise ClusterError(
            f"no kubeconfig{named} found ({told}); set KUBECONFIG, or kubernetes.context in the "
            "cluster profile to a name that `kubectl config get-contexts` lists"
        ) from error
    return context


def has_context(name: str) -> bool:
    """Whether this kubeconfig has a context of this name."""
    return name in _contexts()[0]


def current_context() -> str | None:
    """The context that this kubeconfig uses where none is named."""
    return _contexts()[1]


def _contexts() -> tuple[list[str], str | None]:
    """All contexts, and the current one; none of a kubeconfig that cannot be read."""
    import yaml
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    try:
        found, current = config.list_kube_config_contexts(kubeconfig())
        return [str(each["name"]) for each in found], str(current["name"])
    except (ConfigException, yaml.YAMLError, OSError, KeyError, TypeError):
        return [], None


class RefusedError(ClusterError):
    """The API server refused the request."""

    def __init__(self, sentence: str, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = str(status.get("reason") or "")
        """The Status object's reason: AlreadyExists, Forbidden, Conflict, ..."""
        self.message = str(status.get("message") or "")
        """What the API server itself says."""
        self.causes = [dict(each) for each in (status.get("details") or {}).get("causes") or ()]
        """For the reason Conflict: a `field`, and a `message` that names its manager."""


class AlreadyExistsError(ClusterError):
    """An object of this kind and name exists, and this request did not create it."""


class Kube:
    """One namespace of one cluster."""

    def __init__(
        self, client: Any, namespace: str, context: str, patience_s: float = PATIENCE_S
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.context = context
        self._patience_s = patience_s
        self._clock_ahead = timedelta()

    def __repr__(self) -> str:
        return f"Kube({self.context!r}, {self.namespace!r})"

    @staticmethod
    def open(spec: KubernetesSpec, patience_s: float = PATIENCE_S) -> "Kube":
        """The cluster that the profile's context names. Raises: ClusterError."""
        from kubernetes import client

        settings = client.Configuration()
        settings.retries = False  # `text` tries again, within its own bounds
        context = load_context(settings, spec.context)
        return Kube(client.ApiClient(settings), spec.namespace, context, patience_s)

    @staticmethod
    def inside() -> "Kube":
        """The cluster that this pod runs in, with its own service account."""
        from kubernetes import client, config

        settings = client.Configuration()
        settings.retries = False
        config.load_incluster_config(settings)
        namespace = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text(
            "utf-8"
        )
        return Kube(client.ApiClient(settings), namespace.strip(), "this cluster")

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self.client.configuration.host)

    def now(self) -> datetime:
        """The time by the API server's clock, by which the times in its objects are set."""
        return datetime.now(UTC) - self._clock_ahead

    def version(self) -> str:
        """The API server's version, as v1.34.0."""
        return str(self.ask("GET", "/version")["gitVersion"])

    def has(self, group: str) -> bool:
        """Whether the API server knows an API group, such as scheduling.volcano.sh."""
        try:
            self.ask("GET", f"/apis/{group}")
        except RefusedError as error:
            if error.code in (403, 404):
                return False
            raise
        return True

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object; None if there is none."""
        try:
            return self.ask("GET", self.path(kind, name))
        except RefusedError as error:
            if error.code == 404:
                return None
            raise

    def list(
        self, kind: str, labels: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> Objects:
        """Every object of a kind that has these labels, in the namespace or in all of them."""
        query = {"limit": PAGE}
        if labels:
            query["labelSelector"] = ",".join(f"{name}={value}" for name, value in labels.items())
        found: Objects = []
        while True:
            try:
                answer = self.ask("GET", self.path(kind, everywhere=everywhere), query=query)
            except RefusedError as error:
                if error.code != 410 or "limit" not in query:
                    raise
                found = []  # the list expired between two pages: fetch all of it at once
                query = {name: value for name, value in query.items() if name == "labelSelector"}
                continue
            found += answer["items"]
            after = answer["metadata"].get("continue")
            if not after:
                return found
            query["continue"] = after

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object exactly once, even if answers are lost.

        Raises: AlreadyExistsError if an object of this name exists that this call did not create.
        """
        kind, metadata = manifest["kind"], manifest.get("metadata") or {}
        path, name = self.path(kind), metadata.get("name")
        if name is None:  # the server answers a review without storing it: it may be sent again
            return self.ask("POST", path, body=manifest)
        mark = {MARK: secrets.token_hex(8)}
        annotations = {**(metadata.get("annotations") or {}), **mark}
        marked = {**manifest, "metadata": {**metadata, "annotations": annotations}}

        def look() -> str | None:
            found = self.get(kind, name)
            if found is None:
                return None
            if not mark.items() <= (found["metadata"].get("annotations") or {}).items():
                raise AlreadyExistsError(
                    f"{kind} {name} in namespace {self.namespace} already exists, and this "
                    f"command did not create it; `kubectl -n {self.namespace} get {kind.lower()} "
                    f"{name} -o yaml` shows whose it is"
                )
            return json.dumps(found)

        try:
            return self.ask("POST", path, body=marked, after_unclear=look)
        except RefusedError as error:
            if error.reason != "AlreadyExists":
                raise
            text = look()
            if text is None:
                raise
            made: dict[str, Any] = json.loads(text)
            return made

    def apply(self, manifest: Mapping[str, Any], force: bool = False) -> dict[str, Any]:
        """Server-side apply; `force` takes over fields that another manager owns."""
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        path = self.path(manifest["kind"], manifest["metadata"]["name"])
        return self.ask(
            "PATCH", path, query=query, body=manifest, content="application/apply-patch+yaml"
        )

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> dict[str, Any] | None:
        """Merge a change into an object; None if there is none."""
        content = "application/merge-patch+json"
        try:
            return self.ask("PATCH", self.path(kind, name), body=change, content=content)
        except RefusedError as error:
            if error.code == 404:
                return None
            raise

    def delete(self, kind: str, name: str, grace_s: int | None = None) -> bool:
        """Delete an object; False if there is none."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        unclear = []

        def note() -> None:
            unclear.append(True)

        try:
            self.ask("DELETE", self.path(kind, name), body=body, after_unclear=note)
        except RefusedError as error:
            if error.code == 404:
                return bool(unclear)  # deleted by the request whose answer was lost
            raise
        return True

    def may(self, verb: str, group: str, resource: str, name: str | None = None) -> bool:
        """Whether the caller has a right in the namespace; resource as in pods/log."""
        plural, _, sub = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "namespace": self.namespace}
        if sub:
            attributes["subresource"] = sub
        if name:
            attributes["name"] = name
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return bool(self.create(review)["status"]["allowed"])

    def log(self, pod: str, container: str, tail: int = 200) -> str:
        """The end of a container's log."""
        query = {"container": container, "tailLines": str(tail)}
        return self.text("GET", f"{self.path('Pod', pod)}/log", query=query)

    def path(self, kind: str, name: str | None = None, everywhere: bool = False) -> str:
        """The path of a kind's objects, or of one."""
        if kind not in KINDS:
            raise ClusterError(f"cifarray does not know the kind {kind}")
        where = KINDS[kind]
        inside = where.namespaced and not everywhere
        middle = f"/namespaces/{self.namespace}" if inside else ""
        last = f"/{quote(name, safe='')}" if name else ""
        return f"{where.prefix}{middle}/{where.plural}{last}"

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
        after_unclear: Look = lambda: None,
    ) -> dict[str, Any]:
        """One request, retried while the server is busy or silent. Raises: RefusedError."""
        text = self.text(
            method, path, query=query, body=body, content=content, after_unclear=after_unclear
        )
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ClusterError(
                f"what answers at {self.server} (context {self.context}) is not a Kubernetes API "
                "server; check the address in the kubeconfig and any proxy in between"
            )
        return answer

    def text(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
        after_unclear: Look = lambda: None,
    ) -> str:
        """As `ask`, without reading the answer as JSON."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        deadline = Deadline(self._patience_s)
        for wait_s in pauses(PAUSES_S):
            cause: Exception
            try:
                return self._exchange(method, url, body, content)
            except ApiException as error:
                cause, failure = error, self._refusal(error)
                wait_s = max(wait_s, _asked_wait_s(error))
                if error.status not in (UNDONE, *UNCLEAR):
                    raise failure from error
                unclear = error.status in UNCLEAR
            except (HTTPError, OSError) as error:
                cause, failure = error, ClusterError(self._unanswered(error))
                unclear = not isinstance(error, NewConnectionError | ConnectTimeoutError)
            if unclear and (settled := after_unclear()) is not None:
                return settled
            if not deadline.allows(wait_s):
                raise failure from cause
            time.sleep(wait_s)
        raise AssertionError("pauses never end")

    def _exchange(self, method: str, url: str, body: Any, content: str) -> str:
        from kubernetes.client.exceptions import ApiException

        headers: dict[str, str] = {"Accept": "application/json", "User-Agent": "cifarray"}
        if body is not None:
            headers["Content-Type"] = content
        self.client.update_params_for_auth(headers, [], ["BearerToken"], "", method, None)
        answer = self.client.call_api(
            method, url, headers, body=body, _request_timeout=(CONNECT_S, READ_S)
        )
        self._clock_ahead = _clock_ahead(answer.headers) or self._clock_ahead
        data: bytes = answer.read()
        if not 200 <= answer.status <= 299:
            problem = ApiException(status=answer.status, reason=answer.reason)
            problem.body = data.decode("utf-8", "replace")
            problem.headers = answer.headers
            raise problem
        return data.decode("utf-8", "replace")

    def _refusal(self, error: Any) -> ClusterError:
        """One sentence from a Status object; status 0 is the client's word for failed TLS."""
        if not error.status:
            return ClusterError(self._unanswered(error))
        try:
            status = json.loads(error.body or "")
            message = str(status["message"])
        except (ValueError, KeyError, TypeError):
            status, message = {}, str(error.reason)
        hint = {
            401: "; log in to the cluster again",
            403: f"; ask the administrator of namespace {self.namespace} for this right (the Role "
            "cifarray-submitter has all rights that submitting requires)",
        }.get(error.status, "")
        sentence = f"the API server at {self.server} refuses ({error.status}): {message}{hint}"
        return RefusedError(sentence, int(error.status), status)

    def _unanswered(self, error: Exception) -> str:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        return (
            f"the API server at {self.server} (context {self.context}) does not answer ({reason})"
        )


def condition(found: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """An object's condition of a kind; empty if it has none."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def holds(found: Mapping[str, Any], kind: str) -> bool:
    """Whether an object's condition of a kind is true."""
    return condition(found, kind).get("status") == "True"


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready and not being deleted."""
    return holds(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")


def _asked_wait_s(error: Any) -> float:
    """The seconds that the server asks to wait (Retry-After)."""
    text = str((error.headers or {}).get("Retry-After") or "")
    return float(text) if text.isdecimal() else 0.0


def _clock_ahead(headers: Any) -> timedelta | None:
    """By how much this machine's clock is ahead of the server's; None if it does not say."""
    try:
        return datetime.now(UTC) - parsedate_to_datetime(str(headers.get("Date")))
    except (TypeError, ValueError):
        return None
