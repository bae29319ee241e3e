"""An S3 server that lacks something: a proxy before a good one, which forges what passes."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "date", "server")


@dataclass
class Passed:
    """A request on its way to the server, or the answer on its way back."""

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in small letters."""
    body: bytes = b""

    def without(self, *names: str) -> None:
        """Take headers away whose names begin so."""
        self.headers = {k: v for k, v in self.headers.items() if not k.startswith(names)}


Forge = Callable[[Passed], None]


def unchanged(passed: Passed) -> None:
    """Forge nothing."""


@contextmanager
def forging(upstream: str, request: Forge = unchanged, answer: Forge = unchanged) -> Iterator[str]:
    """The address of a proxy before `upstream` that changes what passes."""
    at = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self) -> None:
            body = b"".join(self.pieces())
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Passed(self.command, self.path, 0, headers, body)
            asked.without("expect", "transfer-encoding", "content-length")
            asked.headers["content-length"] = str(len(body))
            request(asked)
            there = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
            there.request(asked.method, asked.path, asked.body, asked.headers)
            found = there.getresponse()
            headers = {name.lower(): value for name, value in found.getheaders()}
            given = Passed(asked.method, asked.path, found.status, headers, found.read())
            length = given.headers.get("content-length", str(len(given.body)))
            given.without(*(name for name in HOP_BY_HOP if name != "date"))
            answer(given)
            there.close()
            self.send_response_only(given.status)
            whole = length if self.command == "HEAD" else str(len(given.body))
            for name, value in {**given.headers, "content-length": whole}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(given.body)

        def pieces(self) -> Iterator[bytes]:
            """The request's body, which pyarrow sends in chunks."""
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
