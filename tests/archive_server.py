"""An HTTP server on loopback that can cut connections, ignore ranges and answer with errors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ArchiveServer:
    """What it serves and how; change it between requests."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Bytes of each coming answer after which the connection ends; no entry: the whole answer."""
    whole: int = 0
    """Answers that were to be cut and were too short for that."""
    statuses: list[int] = field(default_factory=list)
    """Error codes of the coming answers."""
    reason: str | None = None
    """What errors say instead of the usual phrase."""
    ranges: bool = True
    lengths: bool = True
    """Whether answers say how long they are."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of every request."""

    def url(self, name: str) -> str:
        """The address of a file."""
        return f"{self.address}/{name}"


@contextmanager
def serve_archives() -> Iterator[ArchiveServer]:
    """Serve on a free port until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        server = ArchiveServer(f"http://127.0.0.1:{httpd.server_port}")
        httpd.archives = server  # type: ignore[attr-defined]
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
            assert not (server.cuts or server.statuses or server.whole), "not every fault was met"
        finally:
            httpd.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer as the server's settings say."""
        server: ArchiveServer = self.server.archives  # type: ignore[attr-defined]
        server.asked.append(dict(self.headers))
        name = self.path.partition("?")[0].lstrip("/")
        if server.statuses or name not in server.files:
            self.send_error(server.statuses.pop(0) if server.statuses else 404, server.reason)
            return
        data, tag = server.files[name], server.etags.get(name)
        if tag and self.headers["If-None-Match"] == tag:
            self.send_response(304)
            self.end_headers()
            return
        start = self._start(server, tag)
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if tag:
            self.send_header("ETag", tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:]
        if not server.cuts:
            self.wfile.write(rest)
            return
        cut = server.cuts.pop(0)
        server.whole += cut >= len(rest)
        self.wfile.write(rest[:cut])

    def _start(self, server: ArchiveServer, tag: str | None) -> int:
        """Where the wanted range begins; 0 where the whole file is sent."""
        wanted = self.headers["Range"]
        same = self.headers["If-Range"] in (None, tag)
        return int(wanted[6:-1]) if wanted and server.ranges and same else 0

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""
