"""One namespace of a Kubernetes cluster, spoken to through the official client.

Objects are plain dicts as kubectl prints them. Every failure is a ClusterError of one sentence.
"""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from cifarray.errors import ClusterError
from cifarray.spec.profile import KubernetesSpec
from cifarray.submit.kubernetes import contexts
from cifarray.submit.kubernetes.kinds import KINDS

CONNECT_S, READ_S = 5.0, 30.0
PATIENCE_S = 30.0
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
FIELD_MANAGER = "cifarray"
BUSY = (429, 500, 502, 503, 504)
"""Answers after which a request is worth another try."""
UNDONE = (429, 503)
"""Of these, the ones after which even a POST may be sent again: nothing was made."""
PAGE = "500"
Objects: TypeAlias = list[dict[str, Any]]
"""Named, since inside Kube `list` is a method."""


class RefusedError(ClusterError):
    """The API server answered, and not with what was wanted."""

    def __init__(self, sentence: str, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = str(status.get("reason") or "")
        """The Status object's reason: AlreadyExists, Forbidden, Conflict, ..."""
        self.message = str(status.get("message") or "")
        """What the API server itself says."""
        self.causes = [dict(each) for each in (status.get("details") or {}).get("causes") or ()]
        """With reason Conflict: a `field`, and a `message` that names who manages it."""


class Kube:
    """One namespace of one cluster."""

    def __init__(
        self, client: Any, namespace: str, context: str, patience_s: float = PATIENCE_S
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.context = context
        self._patience_s = patience_s

    def __repr__(self) -> str:
        return f"Kube({self.context!r}, {self.namespace!r})"

    @staticmethod
    def open(spec: KubernetesSpec, patience_s: float = PATIENCE_S) -> "Kube":
        """The cluster that the profile's context names. Raises: ClusterError."""
        from kubernetes import client

        settings = client.Configuration()
        settings.retries = False  # `text` tries again, within its own bounds
        context = contexts.load(settings, spec.context)
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

    def version(self) -> str:
        """The API server's version, as v1.34.0."""
        return str(self.ask("GET", "/version")["gitVersion"])

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object; None where there is none."""
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
                found = []  # the list grew old between two pages: all of it at once
                query = {name: value for name, value in query.items() if name == "labelSelector"}
                continue
            found += answer["items"]
            after = answer["metadata"].get("continue")
            if not after:
                return found
            query["continue"] = after

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object. Raises: RefusedError with AlreadyExists where there is one."""
        return self.ask("POST", self.path(manifest["kind"]), body=manifest)

    def apply(self, manifest: Mapping[str, Any], force: bool = False) -> dict[str, Any]:
        """Server-side apply; `force` takes fields over that somebody else manages."""
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        path = self.path(manifest["kind"], manifest["metadata"]["name"])
        return self.ask(
            "PATCH", path, query=query, body=manifest, content="application/apply-patch+yaml"
        )

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into an object."""
        content = "application/merge-patch+json"
        return self.ask("PATCH", self.path(kind, name), body=change, content=content)

    def delete(self, kind: str, name: str, grace_s: int | None = None) -> bool:
        """Ask for an object's end; False where there is none."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            self.ask("DELETE", self.path(kind, name), body=body)
        except RefusedError as error:
            if error.code == 404:
                return False
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
            raise ClusterError(f"cifarray knows no way to kind {kind}")
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
    ) -> dict[str, Any]:
        """One exchange, tried again while the server is busy or silent. Raises: RefusedError."""
        text = self.text(method, path, query=query, body=body, content=content)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ClusterError(
                f"what answers at {self.server} (context {self.context}) is no Kubernetes API "
                "server; check the address in the kubeconfig, and any proxy on the way"
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
    ) -> str:
        """As `ask`, without reading the answer as JSON."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        deadline = time.monotonic() + self._patience_s
        again = UNDONE if method == "POST" else BUSY
        for pause in _pauses():
            wait_s = pause
            try:
                return self._exchange(method, url, body, content)
            except ApiException as error:
                wait_s = max(pause, _asked_wait_s(error))
                if error.status not in again or time.monotonic() + wait_s >= deadline:
                    raise self._refusal(error) from error
            except (HTTPError, OSError) as error:
                # A POST may have arrived: whoever sends one looks before sending it again.
                arrived = not isinstance(error, NewConnectionError | ConnectTimeoutError)
                if (method == "POST" and arrived) or time.monotonic() + wait_s >= deadline:
                    raise ClusterError(self._silence(error)) from error
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
            return ClusterError(self._silence(error))
        try:
            status = json.loads(error.body or "")
            message = str(status["message"])
        except (ValueError, KeyError, TypeError):
            status, message = {}, str(error.reason)
        hint = {
            401: "; log in to the cluster again",
            403: f"; ask whoever runs namespace {self.namespace} for the right to do that "
            "(the Role cifarray-submitter holds all that submitting needs)",
        }.get(error.status, "")
        sentence = f"the API server at {self.server} refuses ({error.status}): {message}{hint}"
        return RefusedError(sentence, int(error.status), status)

    def _silence(self, error: Exception) -> str:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        return (
            f"the API server at {self.server} (context {self.context}) does not answer ({reason})"
        )


def _asked_wait_s(error: Any) -> float:
    """The seconds that the server wants to be left alone for."""
    text = str((error.headers or {}).get("Retry-After") or "")
    return float(text) if text.isdecimal() else 0.0


def _pauses() -> Iterator[float]:
    return itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))
