"""Servers on loopback that fail as networks do: they swallow, cut or forge what passes."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class CuttingProxy:
    """Passes bytes on to a server; cuts connections that answer more than `cut_after` bytes."""

    upstream: str
    address: str = ""
    cut_after: int | None = None
    cuts_left: int = 0
    passed_bytes: int = 0
    """Of all answers up to now."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self, after_bytes: int, times: int) -> None:
        """Cut the next `times` answers that are longer than this."""
        with self._lock:
            self.cut_after, self.cuts_left = after_bytes, times

    def passing(self, amount: int, on_this_connection: int) -> int:
        """How many of the bytes pass before the connection has to end, and count them."""
        with self._lock:
            end = on_this_connection + amount
            if self.cut_after is not None and self.cuts_left > 0 and end > self.cut_after:
                self.cuts_left -= 1
                amount = max(0, self.cut_after - on_this_connection)
            self.passed_bytes += amount
            return amount


@contextmanager
def cutting_proxy(upstream: str) -> Iterator[CuttingProxy]:
    """A proxy on a free port in front of `http://host:port`."""
    proxy = CuttingProxy(upstream)
    at = urlsplit(upstream)
    target = (at.hostname or "127.0.0.1", at.port or 80)
    with _listening(lambda client: _relay(client, target, proxy)) as port:
        proxy.address = f"http://127.0.0.1:{port}"
        yield proxy


@contextmanager
def black_hole() -> Iterator[str]:
    """A server that takes every connection and never answers."""
    held: list[socket.socket] = []
    with _listening(held.append) as port:
        yield f"http://127.0.0.1:{port}"
    for connection in held:
        connection.close()


@contextmanager
def answering(answer: Callable[[str], tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """An HTTP server whose every answer `answer` makes from method and path."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            status, headers, body = answer(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_CONNECT = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Collector:
    """A server that hopes for secrets: it answers as a willing Jobs API, and keeps what it gets."""

    job_id: str
    """The only job that it knows; that one runs for ever."""
    address: str = ""
    received: list[str] = field(default_factory=list)
    """Each request: its line, its headers, its body."""


@contextmanager
def collecting(job_id: str) -> Iterator[Collector]:
    """Such a server on a free port."""
    collector = Collector(job_id)

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            text = body.decode("utf-8", "replace")
            collector.received.append(f"{self.command} {self.path}\n{self.headers}\n{text}")
            name = self.path.removeprefix("/api/jobs/").partition("/")[0]
            job = {"submission_id": name, "status": "RUNNING", "stopped": True, "logs": "a log"}
            answer = json.dumps(job).encode()
            self.send_response(200 if name in ("", job_id) else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    collector.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _listening(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _relay(client: socket.socket, target: tuple[str, int], proxy: CuttingProxy) -> None:
    with client, socket.create_connection(target) as server, contextlib.suppress(OSError):
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        passed = 0
        while data := server.recv(1 << 16):
            if data.startswith(b"HTTP/1.1 1"):  # an interim answer, to Expect: 100-continue
                end = data.index(b"\r\n\r\n") + 4
                client.sendall(data[:end])
                data = data[end:]
            allowed = proxy.passing(len(data), passed)
            client.sendall(data[:allowed])
            passed += allowed
            if allowed < len(data):
                client.shutdown(socket.SHUT_RDWR)
                return


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
