"""An S3 server with quirks: a proxy before a good server, which behaves as one or another product.

It is a forward proxy too. With `HTTP_PROXY` set to its address, a client reaches any host name
through it, as `bucket.s3.example` of a server that takes the bucket in the host name alone.
"""

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

OF_THIS_HOP = ("connection", "expect", "keep-alive", "transfer-encoding", "content-length")
LAG_S = 60.0
"""Longer than a busy machine takes from a write to the listing that must not show it."""
SUPPORTED = "A header you provided implies functionality that is not implemented."


@dataclass
class Exchange:
    """A request on its way to the server and then, with a status, its answer on the way back."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in small letters."""
    body: bytes
    status: int = 0
    lost: bool = False
    """Whether the connection ends without the answer."""
    asked: dict[str, str] = field(default_factory=dict)
    """The headers as the client sent them."""

    @property
    def query(self) -> str:
        """What follows the path."""
        return self.path.partition("?")[2]

    @property
    def deletes_many(self) -> bool:
        """Whether it is DeleteObjects."""
        return self.method == "POST" and self.query.startswith("delete")

    @property
    def lists(self) -> bool:
        """Whether it is ListObjectsV2."""
        return self.method == "GET" and "list-type=2" in self.query

    @property
    def prefix(self) -> str:
        """Of a listing: what every key begins with."""
        return unquote(dict(parse_qsl(self.query)).get("prefix", ""))

    @property
    def of_parts(self) -> bool:
        """Whether it belongs to a multipart upload."""
        return "uploads" in self.query or "uploadId=" in self.query

    def without(self, *names: str) -> None:
        """Take headers away whose names begin so."""
        self.headers = {k: v for k, v in self.headers.items() if not k.startswith(names)}

    def has(self, *names: str) -> bool:
        """Whether the request has a header whose name begins so."""
        return any(name.startswith(names) for name in self.asked)

    def refuse(self, status: int, code: str, message: str = SUPPORTED) -> None:
        """Answer so without asking the server."""
        self.status = status
        self.headers = {"content-type": "application/xml"}
        self.body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


Step = Callable[[Exchange], None]


def _nothing(_: Exchange) -> None:
    pass


@dataclass(frozen=True)
class Quirk:
    """What happens to requests, and to answers."""

    asked: Step = _nothing
    given: Step = _nothing


def _refusing(wanted: Callable[[Exchange], bool], status: int, code: str) -> Quirk:
    def asked(one: Exchange) -> None:
        if wanted(one):
            one.refuse(status, code)

    return Quirk(asked)


def _ignoring(*names: str) -> Quirk:
    def asked(one: Exchange) -> None:
        if one.method == "PUT":
            one.without(*names)

    return Quirk(asked)


def _of_what_is_there() -> Quirk:
    """MinIO before the fix of its issue 21526: If-Match on an absent object writes it."""
    there: set[str] = set()

    def asked(one: Exchange) -> None:
        name = one.path.partition("?")[0]
        if one.method == "PUT" and name not in there:
            one.without("if-match")
            there.add(name)
        if one.method == "DELETE":
            there.discard(name)
        if one.deletes_many:
            there.clear()

    return Quirk(asked)


def _virtual_host_only() -> Quirk:
    """Alibaba OSS: the bucket stands in the host name, and nowhere else."""

    def asked(one: Exchange) -> None:
        bucket, _, rest = one.headers["host"].partition(".")
        if not rest.startswith("s3."):
            one.refuse(403, "SecondLevelDomainForbidden", "use the virtual hosted style")
            return
        one.path = f"/{bucket}{one.path}"
        one.without("host")  # the server behind has a name of its own

    return Quirk(asked)


def _lagging_list(of: str) -> Quirk:
    """A listing does not know of what was written (PUT) or deleted (DELETE) a moment ago."""
    changed: dict[str, float] = {}
    item = re.compile(rb"<Contents>(?:(?!</Contents>).)*<Key>(.*?)</Key>.*?</Contents>", re.DOTALL)

    def asked(one: Exchange) -> None:
        if one.method == of and not one.query:
            changed[unquote(one.path).split("/", 2)[2]] = time.monotonic()

    def fresh(key: bytes) -> bool:
        return time.monotonic() - changed.get(key.decode(), -LAG_S) < LAG_S

    def given(one: Exchange) -> None:
        if not one.lists:
            return
        if of == "PUT":
            one.body = item.sub(lambda m: b"" if fresh(m[1]) else m[0], one.body)
            return
        entries = b"".join(
            b"<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            b'<ETag>"e"</ETag><Size>8</Size></Contents>' % key.encode()
            for key in changed
            if fresh(key.encode()) and key.startswith(one.prefix)
        )
        one.body = one.body.replace(b"</ListBucketResult>", entries + b"</ListBucketResult>")

    return Quirk(asked, given)


def _forged(wanted: Callable[[Exchange], bool], forge: Callable[[bytes], bytes]) -> Quirk:
    def given(one: Exchange) -> None:
        if one.status == 200 and wanted(one):
            one.body = forge(one.body)

    return Quirk(given=given)


def _cut_pages(body: bytes) -> bytes:
    """A first page that says it is the last."""
    return body.replace(b"<IsTruncated>true", b"<IsTruncated>false")


def _late_clock() -> Quirk:
    def given(one: Exchange) -> None:
        one.headers["date"] = formatdate(time.time() - 3600, usegmt=True)

    return Quirk(given=given)


def _named(name: str) -> Quirk:
    def given(one: Exchange) -> None:
        one.headers["server"] = name

    return Quirk(given=given)


def _ranges_ignored() -> Quirk:
    def asked(one: Exchange) -> None:
        one.without("range")

    return Quirk(asked)


def _deletes_ignored() -> Quirk:
    def asked(one: Exchange) -> None:
        if one.deletes_many:
            one.refuse(200, "")
            one.body = b"<DeleteResult></DeleteResult>"

    return Quirk(asked)


CONDITIONS = ("if-none-match", "if-match")
CHECKSUMS = ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer")
QUIRKS: dict[str, Callable[[], Quirk]] = {
    "conditions refused": lambda: _refusing(
        lambda one: one.method == "PUT" and one.has(*CONDITIONS), 501, "NotImplemented"
    ),
    "conditions ignored": lambda: _ignoring(*CONDITIONS),
    "If-Match refused": lambda: _refusing(
        lambda one: one.method == "PUT" and one.has("if-match"), 501, "NotImplemented"
    ),
    "If-Match ignored": lambda: _ignoring("if-match"),
    "If-Match makes what is absent": _of_what_is_there,
    "Content-MD5 required": lambda: _refusing(
        lambda one: one.deletes_many and not one.has("content-md5"), 400, "MissingContentMD5"
    ),
    "no DeleteObjects": lambda: _refusing(lambda one: one.deletes_many, 501, "NotImplemented"),
    "DeleteObjects ignored": _deletes_ignored,
    "deletes denied": lambda: _refusing(
        lambda one: one.deletes_many or (one.method == "DELETE" and not one.query),
        *(403, "AccessDenied"),
    ),
    "checksums refused": lambda: _refusing(lambda one: one.has(*CHECKSUMS), 400, "InvalidArgument"),
    "checksums break signatures": lambda: _refusing(
        lambda one: one.has(*CHECKSUMS), 403, "SignatureDoesNotMatch"
    ),
    "checksums required": lambda: _refusing(
        lambda one: one.method == "PUT" and not one.query and not one.has(*CHECKSUMS, "x-amz-copy"),
        *(400, "InvalidRequest"),
    ),
    "virtual host only": _virtual_host_only,
    "list lags behind writes": lambda: _lagging_list("PUT"),
    "list lags behind deletes": lambda: _lagging_list("DELETE"),
    "first page is the last": lambda: _forged(lambda one: one.lists, _cut_pages),
    "delimiter ignored": lambda: Quirk(
        lambda one: setattr(one, "path", one.path.replace("delimiter=%2F", "delimiter="))
    ),
    "multipart refused": lambda: _refusing(lambda one: one.of_parts, 501, "NotImplemented"),
    "copies refused": lambda: _refusing(
        lambda one: one.has("x-amz-copy-source"), 501, "NotImplemented"
    ),
    "metadata lost": lambda: _ignoring("x-amz-meta-"),
    "ranges ignored": _ranges_ignored,
    "bytes reversed": lambda: _forged(
        lambda one: one.method == "GET" and not one.query, lambda body: body[::-1]
    ),
    "writes denied": lambda: _refusing(
        lambda one: one.method in ("PUT", "POST"), 403, "AccessDenied"
    ),
    "full": lambda: _refusing(
        lambda one: one.method in ("PUT", "POST") and not one.deletes_many,
        *(507, "InsufficientStorage"),
    ),
    "clock runs late": _late_clock,
    "another name": lambda: _named("another server"),
}
"""Behaviors of servers that speak S3; tests name them."""


@dataclass
class QuirkyServer:
    """Where it answers, and all that passed."""

    address: str = ""
    seen: list[Exchange] = field(default_factory=list)
    lose: Callable[[Exchange], bool] | None = None
    """Which answer gets lost, once: the request has reached the server."""

    def count(self, method: str, part: str = "") -> int:
        """How many requests of this method had this in their path."""
        return sum(one.method == method and part in one.path for one in self.seen)


@contextmanager
def quirky_s3(upstream: str, *quirks: str) -> Iterator[QuirkyServer]:
    """A proxy with these quirks on a free port before `http://host:port`."""
    server, chosen = QuirkyServer(), [QUIRKS[name]() for name in quirks]
    handler = type("Handler", (_Handler,), {"upstream": upstream, "quirks": chosen, "own": server})
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    try:
        server.address = f"http://127.0.0.1:{listener.server_port}"
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers `Expect: 100-continue` at once, as the base class does, and passes the rest on."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream = ""
    quirks: tuple[Quirk, ...] = ()
    own: QuirkyServer

    def do(self) -> None:
        at = urlsplit(self.path)  # a client of a forward proxy sends the whole address
        path = f"{at.path or '/'}{f'?{at.query}' if at.query else ''}"
        asked = {name.lower(): value for name, value in self.headers.items()}
        one = Exchange(self.command, path, dict(asked), b"".join(self.pieces()), asked=asked)
        self.own.seen.append(one)
        one.without(*OF_THIS_HOP)
        for quirk in self.quirks:
            if not one.status:
                quirk.asked(one)
        if not one.status:
            self.pass_on(one)
            for quirk in self.quirks:
                quirk.given(one)
        if self.own.lose is not None and self.own.lose(one):
            self.own.lose, one.lost, self.close_connection = None, True, True
            return
        self.send_response_only(one.status)
        length = one.headers.pop("content-length", str(len(one.body)))
        one.headers["content-length"] = length if self.command == "HEAD" else str(len(one.body))
        for name, value in one.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(one.body)

    def pass_on(self, one: Exchange) -> None:
        """Put the server's answer in the place of the request."""
        at = urlsplit(self.upstream)
        server = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
        headers = {**one.headers, "content-length": str(len(one.body))}
        server.request(one.method, one.path, one.body, headers)
        answer = server.getresponse()
        one.status, one.body = answer.status, answer.read()
        one.headers = {name.lower(): value for name, value in answer.getheaders()}
        length = one.headers.get("content-length")
        one.without(*OF_THIS_HOP)
        if one.method == "HEAD" and length:
            one.headers["content-length"] = length
        server.close()

    def pieces(self) -> Iterator[bytes]:
        """The request's body, which some clients send in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""
