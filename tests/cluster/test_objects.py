"""What cifarray makes on a real API server, through a proxy that loses its answers; no operator."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3

from cifarray.backends.kubernetes.client import AlreadyExistsError, Kube
from cifarray.backends.kubernetes.manifests import manifests
from cifarray.backends.kubernetes.rayjob import launch_rayjob
from cifarray.backends.kubernetes.setup import apply_all
from cifarray.spec.profile import KubernetesSpec
from cifarray.store import Store
from tests.cluster.conftest import MANIFESTS
from tests.cluster.kubectl import NAMESPACE, Kubectl
from tests.unit.backends.kubernetes.kube_requests import JOB_ID, recorded_run

pytestmark = pytest.mark.timeout(300)
OBJECTS = ("rayjob,networkpolicy", JOB_ID)


@contextmanager
def forgetful(kubeconfig: Path, folder: Path, code: int | None) -> Iterator[Path]:
    """A kubeconfig that leads through a proxy, which answers `code` to the first POST of each path.

    The request has arrived all the same. Without a code the connection is cut.
    """
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    authority = folder / "authority.pem"
    authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    pool = urllib3.PoolManager(ca_certs=str(authority), cert_reqs="CERT_REQUIRED")
    lost: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            passed = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
            headers = {name: value for name, value in passed.items() if value}
            answer = pool.request(
                self.command, f"{cluster['server']}{self.path}", body=body or None, headers=headers
            )
            loses = self.command == "POST" and self.path not in lost
            lost.add(self.path if loses else "")
            if loses and code is None:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(code if loses and code else answer.status)
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            self.wfile.write(answer.data)

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None:
            pass

        def finish(self) -> None:
            if not self.wfile.closed:
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{server.server_port}"}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def nothing_left(kubectl: Kubectl, submitter: Path) -> Iterator[None]:
    """The objects of the test's run are gone at the end; no operator removes a finalizer here."""
    yield
    kubectl("-n", NAMESPACE, "delete", *OBJECTS, "--ignore-not-found", "--timeout=60s")


@pytest.mark.parametrize("code", [500, 503, 504, None])
def test_a_submitter_makes_a_rayjob_that_owns_its_policy_whatever_answers_are_lost(
    submitter: Path,
    kubectl: Kubectl,
    nothing_left: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int | None,
):
    run = recorded_run(Store.open(str(tmp_path / "store")))
    with forgetful(submitter, tmp_path, code) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        kube = Kube.open(KubernetesSpec(namespace=NAMESPACE))
        launch_rayjob(run, run.spec().profile, kube, 1)
        with pytest.raises(AlreadyExistsError, match=r"RayJob .* already exists"):
            launch_rayjob(run, run.spec().profile, kube, 1)
    found = {each["kind"]: each for each in kubectl.json("-n", NAMESPACE, "get", *OBJECTS)["items"]}
    (owner,) = found["NetworkPolicy"]["metadata"]["ownerReferences"]
    assert owner["uid"] == found["RayJob"]["metadata"]["uid"]


@pytest.fixture
def older_classes(kubectl: Kubectl, applied: None) -> Iterator[list[Any]]:
    """Our PriorityClasses, in whose place are those of an older version; kubectl's at the end."""
    classes = [each for each in manifests("local") if each["kind"] == "PriorityClass"]
    names = [each["metadata"]["name"] for each in classes]
    kubectl("delete", "priorityclass", *names)
    for each, value in zip(classes, (1000, 500), strict=True):
        older: dict[str, Any] = {**each, "value": value}
        older.pop("preemptionPolicy")
        kubectl("apply", "-f", "-", stdin=json.dumps(older))
    yield classes
    # kubectl warns of objects that it applies and has not made; other tests take no warning.
    kubectl("delete", "priorityclass", *names)
    kubectl("apply", "-f", str(MANIFESTS))


def test_priority_classes_of_an_older_version_are_made_anew(
    kubectl: Kubectl, administrator: Kube, older_classes: list[Any]
):
    done = apply_all(administrator, older_classes, lambda text: None)
    assert len(done.changed) == 2
    live = [
        kubectl.json("get", "priorityclass", each["metadata"]["name"]) for each in older_classes
    ]
    assert [(each["value"], each["preemptionPolicy"]) for each in live] == [
        (10, "Never"),
        (0, "Never"),
    ]
