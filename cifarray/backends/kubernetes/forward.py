"""A port of a pod on this machine's loopback, for as long as a command needs it."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cifarray.backends.kubernetes.client import Kube
from cifarray.errors import ClusterError

CHUNK_BYTES = 1 << 16
DATA, PROBLEM = 0, 1
"""Channels of the API server's protocol: the port's bytes, and what went wrong with it."""
CLOSE_SIGNAL = 255
"""Channel by which version 5 of the protocol says that another one has ended."""


@contextmanager
def forwarded(kube: Kube, find_pod: Callable[[], str], port: int) -> Iterator[int]:
    """Listen on a free port of loopback; every connection goes to `port` of the pod found then.

    The pod is looked up per connection, so that one which was replaced is found again.
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
        conditions = pod["status"].get("conditions", ())
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and not pod["metadata"].get("deletionTimestamp"):
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
