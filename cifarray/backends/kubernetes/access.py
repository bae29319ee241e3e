"""How this machine reaches what runs in a cluster: port-forwards, heads, the store and its keys."""

import atexit
import base64
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from cifarray.backends.kubernetes.client import Kube, RefusedError, is_ready
from cifarray.backends.kubernetes.pods import of_kubernetes
from cifarray.errors import ClusterError, StoreRefusedError
from cifarray.spec.profile import KubernetesSpec, Profile
from cifarray.store import Access, Store

CHUNK_BYTES = 1 << 16
DATA, PROBLEM = 0, 1
"""Channels of the API server's protocol: the port's bytes, and what went wrong with it."""
CLOSE_SIGNAL = 255
"""Channel by which version 5 of the protocol says that another one has ended."""
T = TypeVar("T")
_lasting = ExitStack()
atexit.register(_lasting.close)
STORE_PORT = 7070
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
HEAD = {"ray.io/node-type": "head"}
TOKEN_KEY = "auth_token"


def for_this_command(opened: AbstractContextManager[T]) -> T:
    """Enter a context that stays open until this process ends."""
    return _lasting.enter_context(opened)


@contextmanager
def forwarded(kube: Kube, find_pod: Callable[[], str], port: int) -> Iterator[int]:
    """Listen on a free port of loopback; forward connections to `port` of the current pod.

    The pod is looked up for each connection, because it may have been replaced.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(
                target=_carry, args=(kube, find_pod, port, connection), daemon=True
            ).start()

    threading.Thread(target=serve, daemon=True, name=f"port-forward to {port}").start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()


def ready_pod(kube: Kube, labels: dict[str, str], what: str) -> str:
    """The name of a pod with these labels that is ready. Raises: ClusterError."""
    pods = kube.list("Pod", labels)
    for pod in pods:
        if is_ready(pod):
            return str(pod["metadata"]["name"])
    state = "is not ready" if pods else "does not exist"
    raise ClusterError(
        f"{what} in namespace {kube.namespace} {state}; see `cifarray cluster status`"
    )


def _carry(kube: Kube, find_pod: Callable[[], str], port: int, local: socket.socket) -> None:
    """Copy both ways between a connection and the pod's port until either side ends."""
    with local:
        try:
            remote = _open(kube, find_pod(), port)
        except (ClusterError, OSError, ValueError):
            return  # the caller sees its connection end, and tries again or says so
        except Exception as error:  # the websocket library's own family
            if not type(error).__module__.startswith("websocket"):
                raise
            return
        try:
            _copy(local, remote)
        finally:
            with suppress(Exception):
                remote.close()


def _open(kube: Kube, pod: str, port: int) -> Any:
    from kubernetes.stream.ws_client import create_websocket

    headers: dict[str, str] = {}
    kube.client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
    address = kube.server.replace("http", "ws", 1)
    url = f"{address}{kube.path('Pod', pod)}/portforward?ports={port}"
    websocket = create_websocket(
        kube.client.configuration, url, {name.lower(): value for name, value in headers.items()}
    )
    websocket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return websocket


def _copy(local: socket.socket, remote: Any) -> None:
    """Each channel's first frame only names its port."""
    begun: set[int] = set()
    while True:
        # What TLS has read already does not show on the socket.
        waiting = getattr(remote.sock, "pending", lambda: 0)()
        readable = [remote.sock] if waiting else select.select([local, remote.sock], [], [])[0]
        if remote.sock in readable:
            frame = remote.recv_data()[1]
            if not isinstance(frame, bytes) or not frame:
                return  # the server closed
            channel, data = frame[0], frame[1:]
            if channel == CLOSE_SIGNAL:
                return
            if channel not in begun:
                begun.add(channel)
            elif channel == PROBLEM:
                return
            else:
                local.sendall(data)
        if local in readable:
            data = local.recv(CHUNK_BYTES)
            if not data:
                return
            remote.send_binary(bytes([DATA]) + data)


@contextmanager
def reached_store(profile: Profile, kube: Kube) -> Iterator[Store]:
    """The profile's store by an endpoint that answers here, until the context ends.

    Raises: ClusterError, StoreError if there are no keys.
    """
    spec, store = of_kubernetes(profile), profile.store
    access = store_access(kube, spec.store_secret, store.region)
    if spec.store_service is None:
        yield Store.open(store.uri, store.endpoint, access)
        return
    selector = service_selector(kube, spec.store_service)
    find = partial(ready_pod, kube, selector, f"the store {spec.store_service}")
    find()
    with forwarded(kube, find, STORE_PORT) as port:
        yield Store.open(store.uri, f"http://127.0.0.1:{port}", access)


def store_access(kube: Kube, secret: str, region: str | None) -> Access:
    """The store's keys from the Secret; without it, those of this process's environment."""
    try:
        found = kube.get("Secret", secret)
    except RefusedError as error:
        if error.code != 403:
            raise
        if all(os.environ.get(name) for name in KEYS):
            return Access(region)
        raise StoreRefusedError(
            f"the Secret {secret} with the store's keys cannot be read with your rights; ask for "
            "the Role cifarray-submitter, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    keys = decoded(found)
    if not all(keys.get(name) for name in KEYS):
        return Access(region)
    return Access(region, *(keys[name] for name in KEYS))


def decoded(secret: Mapping[str, Any] | None) -> dict[str, str]:
    """A Secret's values as text; none if it does not exist."""
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def service_selector(kube: Kube, service: str) -> dict[str, str]:
    """The labels of the pods behind a Service. Raises: ClusterError."""
    found = kube.get("Service", service)
    if found is None:
        raise ClusterError(
            f"namespace {kube.namespace} of {kube.context} has no Service {service}; create it "
            "with `cifarray cluster up --cluster PROFILE`"
        )
    return dict(found["spec"].get("selector") or {})


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
