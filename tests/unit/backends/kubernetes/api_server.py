"""A small API server over HTTP, for answers that no real cluster gives on demand.

It keeps objects by their path, as a real one does, and gives answers that a test has scripted.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from kubernetes import client

from cifarray.backends.kubernetes.client import Kube
from cifarray.spec.profile import KubernetesSpec

TOKEN = "the-callers-token"
GROUPS = "/apis/ray.io/v1"
SAID = {
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """One answer: a status and JSON, some bytes, or a connection that is cut."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    done: bool = False
    """The request is carried out all the same, as by a server whose answer got lost."""


@dataclass
class ApiServer:
    """What it holds, what it was asked, and what it answers first."""

    address: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    scripted: dict[str, list[Answer]] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    """Requests that got a scripted answer."""
    on_request: Callable[[Asked], None] = lambda asked: None
    version: int = 0
    clock_ahead_s: float = 0.0
    """How far its clock is ahead of this machine's."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def script(self, request: str, *answers: Answer) -> None:
        """Give these answers to the next requests of `METHOD /path`; after them, real ones."""
        self.scripted.setdefault(request, []).extend(answers)

    def forbid(self, request: str) -> None:
        """Answer 403 to every request of `METHOD /path`."""
        self.scripted[request] = [refusal(403, f"{request} is forbidden")] * 500
        self.met.add(request)  # that nobody asks for it is fine

    def put(self, path: str, **content: Any) -> dict[str, Any]:
        """Hold an object under the path of its kind and name."""
        with self.lock:
            self.version += 1
            metadata = {
                "name": path.rpartition("/")[2],
                "uid": f"uid-{self.version}",
                "generation": 1,
                "resourceVersion": str(self.version),
                **content.pop("metadata", {}),
            }
            self.objects[path] = {"metadata": metadata, **content}
            return self.objects[path]

    def requests(self, *methods: str) -> list[str]:
        """The requests that came in, as `METHOD /path`; those of some methods, if any are named."""
        return [f"{a.method} {a.path}" for a in self.asked if not methods or a.method in methods]

    def answer(self, asked: Asked) -> Answer:
        """What a request gets."""
        with self.lock:
            self.asked.append(asked)
            self.on_request(asked)
            scripted = self.scripted.get(f"{asked.method} {asked.path}")
            answer = scripted.pop(0) if scripted else None
            if answer is not None:
                self.met.add(f"{asked.method} {asked.path}")
            if answer is None or answer.done:
                real = self._real_answer(asked)
            return answer or real

    def _real_answer(self, asked: Asked) -> Answer:
        if asked.path == "/version":
            return Answer(200, {"gitVersion": "v1.34.0"})
        if asked.path == GROUPS:
            names = ("rayclusters", "rayjobs")
            return Answer(200, {"resources": [{"name": name} for name in names]})
        found = self.objects.get(asked.path)
        if asked.method == "GET":
            if found is not None:
                return Answer(200, found)
            return Answer(200, self._listed(asked)) if _is_list(asked.path) else _absent(asked)
        if asked.method == "DELETE":
            return Answer(200, self._deleted(asked.path)) if found else _absent(asked)
        if asked.method == "PATCH":
            return self._patched(asked, found)
        return self._made(asked)

    def _listed(self, asked: Asked) -> dict[str, Any]:
        wanted = dict(
            pair.split("=") for pair in asked.query.get("labelSelector", "").split(",") if pair
        )
        items = [
            each
            for path, each in sorted(self.objects.items())
            if path.rpartition("/")[0] == asked.path
            and wanted.items() <= (each["metadata"].get("labels") or {}).items()
        ]
        return {"metadata": {}, "items": items}

    def _deleted(self, path: str) -> dict[str, Any]:
        found = self.objects[path]
        if found["metadata"].get("finalizers"):
            found["metadata"]["deletionTimestamp"] = "2026-11-23T04:00:00Z"
            return found
        del self.objects[path]
        if path.startswith("/api/v1/namespaces/") and path.count("/") == 4:
            for other in [each for each in self.objects if f"{path[7:]}/" in each]:
                del self.objects[other]
        return found

    def _patched(self, asked: Asked, found: dict[str, Any] | None) -> Answer:
        if asked.headers["Content-Type"] == "application/merge-patch+json":
            if found is None:
                return _absent(asked)
            found["metadata"] |= asked.body.get("metadata", {})
            if found["metadata"].get("deletionTimestamp") and not found["metadata"]["finalizers"]:
                del self.objects[asked.path]
            return Answer(200, found)
        wanted = asked.body.get("metadata", {}).get("resourceVersion")
        if wanted and found and wanted != found["metadata"]["resourceVersion"]:
            return refusal(409, "the object has been modified")
        given = {name: value for name, value in asked.body.items() if name != "metadata"}
        if found is not None and all(found.get(name) == value for name, value in given.items()):
            return Answer(200, found)
        metadata = {k: v for k, v in asked.body["metadata"].items() if k != "resourceVersion"}
        status = {"status": found["status"]} if found and "status" in found else {}
        made = self.put(asked.path, metadata=metadata, **given, **status)
        return Answer(200 if found else 201, made)

    def _made(self, asked: Asked) -> Answer:
        if asked.path.endswith("selfsubjectaccessreviews"):
            return Answer(201, {**asked.body, "status": {"allowed": True}})
        path = f"{asked.path}/{asked.body['metadata']['name']}"
        if path in self.objects:
            return refusal(409, f"{path} already exists", reason="AlreadyExists")
        return Answer(201, self.put(path, **asked.body))


@contextmanager
def serve_api() -> Iterator[ApiServer]:
    """Such a server on a free port of loopback."""
    api = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            at = urlsplit(self.path)
            content = json.loads(body) if body else None
            query = dict(parse_qsl(at.query))
            headers = {name.title(): value for name, value in self.headers.items()}
            answer = api.answer(Asked(self.command, at.path, query, headers, content))
            if answer.cut:
                self.close_connection = True
                self.connection.close()
                return
            raw = (
                answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            )
            self.send_response_only(answer.status)
            self.send_header("Date", formatdate(time.time() + api.clock_ahead_s, usegmt=True))
            for name, value in {"Content-Length": str(len(raw)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None:
            pass

        def finish(self) -> None:
            if not self.wfile.closed:
                try:
                    super().finish()
                except OSError:
                    return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    api.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
        assert api.met == api.scripted.keys(), "nobody asked for what was scripted"
    finally:
        server.shutdown()
        server.server_close()


def write_kubeconfig(path: Path, server: str, contexts: tuple[str, ...] = ("tests",)) -> Path:
    """A kubeconfig of these contexts, the first one in use, each of the same server."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": contexts[0],
                "clusters": [{"name": "here", "cluster": {"server": server}}],
                "users": [{"name": "caller", "user": {"token": TOKEN}}],
                "contexts": [
                    {"name": name, "context": {"cluster": "here", "user": "caller"}}
                    for name in contexts
                ],
            }
        )
    )
    return path


def refusal(code: int, message: str, reason: str | None = None, **rest: Any) -> Answer:
    """A Status as the API server sends it, built from the client's own model."""
    status = client.V1Status(
        api_version="v1",
        kind="Status",
        status="Failure",
        code=code,
        message=message,
        reason=reason or SAID[code],
        **rest,
    )
    return Answer(code, as_json(status))


def conflict(manager: str, *fields: str) -> Answer:
    """What a server-side apply gets when another manager set these fields otherwise."""
    causes = [
        client.V1StatusCause(
            field=name,
            message=f'conflict with "{manager}" using apps/v1',
            reason="FieldManagerConflict",
        )
        for name in fields
    ]
    details = client.V1StatusDetails(causes=causes)
    return refusal(409, f"Apply failed with {len(fields)} conflicts", details=details)


def as_json(model: Any) -> Any:
    """One of the client's models as the API server would write it."""
    return client.ApiClient().sanitize_for_serialization(model)


def open_kube(patience_s: float = 5.0, **fields: Any) -> Kube:
    """The namespace through the kubeconfig that KUBECONFIG names."""
    return Kube.open(KubernetesSpec.model_validate(fields), patience_s)


def _is_list(path: str) -> bool:
    """Whether a path names a kind's objects: /api/v1/nodes, /apis/G/V/namespaces/N/rayjobs."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    return len(rest) == 1 or (len(rest) == 3 and rest[0] == "namespaces")


def _absent(asked: Asked) -> Answer:
    return refusal(404, f"{asked.path} not found")
