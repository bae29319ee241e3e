"""An HTTP proxy on loopback that holds requests, whole or half sent, or lets them fail."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal
from urllib.parse import urlsplit

PATIENCE_S = 300.0
OF_THIS_HOP = ("connection", "expect", "keep-alive")
"""Headers that this proxy sees to itself."""


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    method: str
    path: str
    body: bytes
    """As it comes over the wire: of chunks, with their lengths."""

    @property
    def deletes(self) -> bool:
        """Whether it deletes one object or a list of them."""
        return self.method == "DELETE" or (self.method == "POST" and self.path.endswith("?delete"))

    def names(self, text: str) -> bool:
        """Whether the text is part of its path or, for a list of objects, of its body."""
        return text in self.path or (self.deletes and text.encode() in self.body)


@dataclass(frozen=True)
class Fault:
    """What becomes of a request instead of its answer."""

    kind: Literal["answer", "reset", "cut", "lost answer", "slow"]
    """answer: this status, unasked; reset: no answer; cut: half of the answer's body, and nothing
    of an answer without one; lost answer: the server does it and nobody hears; slow: a second
    later."""
    status: int = 503
    code: str = "ServiceUnavailable"


@dataclass
class Held:
    """A request that has been held; the status of its answer once it has been let go."""

    request: Request
    status: int | None = None
    answered: threading.Event = field(default_factory=threading.Event)


@dataclass
class HoldingProxy:
    """Passes requests on to a server, and of those that `hold` names each only when let go."""

    upstream: str
    address: str = ""
    how: Literal["half", "whole"] = "whole"
    wanted: Callable[[Request], bool] | None = None
    held: list[Held] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    fault: Callable[[Request], Fault | None] = lambda request: None
    """What goes wrong with a request; asked once for each."""
    faults: list[Request] = field(default_factory=list)
    """Requests that went wrong."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault happened."""

    def hold(self, wanted: Callable[[Request], bool], how: Literal["half", "whole"]) -> None:
        """Hold what is wanted: before any of it reaches the server, or with half of it there."""
        self.how, self.wanted = how, wanted

    def release(self) -> None:
        """Let everything go on, now and from now on."""
        self.released.set()

    def take(self, request: Request) -> Held | None:
        """The request as one that is held, None for one that passes."""
        if self.released.is_set() or self.wanted is None or not self.wanted(request):
            return None
        return Held(request)


@contextmanager
def holding_proxy(upstream: str) -> Iterator[HoldingProxy]:
    """A proxy on a free port in front of `http://host:port`."""
    proxy = HoldingProxy(upstream)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        proxy.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.release()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[HoldingProxy]

    def handle(self) -> None:
        """Serve one connection, which a client that is killed cuts off."""
        with suppress(ConnectionError):
            super().handle()

    def do(self) -> None:
        """Pass one request on, in time or later, and its answer back."""
        body = self._body()
        request = Request(self.command, self.path, body)
        fault = self.proxy.fault(request)
        if fault is not None:
            self.proxy.faults.append(request)
            self.proxy.kinds[fault.kind] += 1
            if fault.kind == "reset":
                self.close_connection = True
                return
            if fault.kind == "answer":
                told = f"<Error><Code>{fault.code}</Code><Message>as told</Message></Error>"
                self._answer(fault.status, [("Content-Type", "application/xml")], told.encode())
                return
            if fault.kind == "slow":
                time.sleep(1.0)
        held = self.proxy.take(request)
        at = urlsplit(self.proxy.upstream)
        server = HTTPConnection(at.hostname or "", at.port, timeout=PATIENCE_S)
        try:
            if held and self.proxy.how == "whole":
                self._wait(held)
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # as they were signed
                if name.lower() not in OF_THIS_HOP:
                    server.putheader(name, value)
            server.endheaders()
            if held and self.proxy.how == "half":
                server.send(body[: len(body) // 2])
                self._wait(held)
                body = body[len(body) // 2 :]
            server.send(body)
            answer = server.getresponse()
            content = answer.read()
            if held:
                held.status = answer.status
                held.answered.set()
            if fault is not None and fault.kind in ("cut", "lost answer"):
                self.close_connection = True
                if fault.kind == "cut" and content:
                    self._answer(answer.status, answer.getheaders(), content, half=True)
                return
            with suppress(OSError):  # who asked may have given up
                self._answer(answer.status, answer.getheaders(), content)
        finally:
            server.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

    def _body(self) -> bytes:
        """The bytes after the headers."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        read, size = bytearray(), -1
        while size:
            read += (line := self.rfile.readline())
            size = int(line.split(b";")[0], 16)
            read += self.rfile.read(size + 2 if size else 0)
        while not read.endswith(b"\r\n\r\n"):  # what follows the last chunk
            read += self.rfile.readline()
        return bytes(read)

    def _wait(self, held: Held) -> None:
        self.proxy.held.append(held)
        self.proxy.released.wait(PATIENCE_S)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in (*OF_THIS_HOP, "content-length", "transfer-encoding"):
                self.send_header(name, value)
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        length = lengths[0] if self.command == "HEAD" and lengths else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""
