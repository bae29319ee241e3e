"""Digests come from a registry, asked over HTTP as docker asks, with a token where it wants one."""

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from scripts import manifests
from scripts.registry import Image, RegistryError, digest_of

INDEX = json.dumps({"mediaType": "application/vnd.oci.image.index.v1+json"}).encode()
DIGEST = f"sha256:{hashlib.sha256(INDEX).hexdigest()}"
LOGIN = base64.b64encode(b"me:my-password").decode()


@dataclass
class Registry:
    """A registry of one image, team/cifarray:1.0, and what it was asked."""

    address: str
    challenge: str = ""
    """What it answers to whoever comes without a token; empty: nobody needs one."""
    digest: str = DIGEST
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths, with the Authorization that came along."""

    @property
    def image(self) -> Image:
        """The image that it has."""
        return Image(f"{self.address}/team/cifarray", "1.0")

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serve the manifest, the token, or a refusal."""
        given = request.headers.get("Authorization")
        self.asked.append((request.path, given))
        if request.path.startswith("/token?"):
            self._send(request, 200, json.dumps({"token": "t0ken"}).encode())
        elif self.challenge and given not in ("Bearer t0ken", f"Basic {LOGIN}"):
            self._send(request, 401, b"{}", {"WWW-Authenticate": self.challenge})
        elif request.path == "/v2/team/cifarray/manifests/1.0":
            self._send(request, 200, INDEX, {"Docker-Content-Digest": self.digest})
        else:
            self._send(request, 404, b"{}")

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry on loopback, and no logins of the developer's own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *words: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Registry(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def log_in(folder: Path, host: str) -> None:
    """Note a login as `docker login` does."""
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": LOGIN}}}))


def wants_token(registry: Registry) -> str:
    """The challenge of a registry whose tokens come from itself."""
    return f'Bearer realm="http://{registry.address}/token",service="reg",scope="pull"'


def test_an_open_registry_names_the_digest(registry: Registry):
    assert digest_of(registry.image) == DIGEST
    assert registry.asked == [("/v2/team/cifarray/manifests/1.0", None)]


def test_a_token_is_fetched_where_one_is_wanted(registry: Registry):
    registry.challenge = wants_token(registry)
    assert digest_of(registry.image) == DIGEST
    assert [path for path, _ in registry.asked][1] == "/token?service=reg&scope=pull"
    assert [given for _, given in registry.asked] == [None, None, "Bearer t0ken"]


def test_a_login_of_docker_s_is_used_for_the_token(registry: Registry, tmp_path: Path):
    log_in(tmp_path, registry.address)
    registry.challenge = wants_token(registry)
    assert digest_of(registry.image) == DIGEST
    assert [given for _, given in registry.asked] == [None, f"Basic {LOGIN}", "Bearer t0ken"]


def test_a_login_of_docker_s_is_used_where_there_are_no_tokens(registry: Registry, tmp_path: Path):
    log_in(tmp_path, registry.address)
    registry.challenge = 'Basic realm="registry"'
    assert digest_of(registry.image) == DIGEST


def test_without_a_login_the_error_says_how_to_get_one(registry: Registry):
    registry.challenge = 'Basic realm="registry"'
    with pytest.raises(RegistryError, match=f"docker login {registry.address}"):
        digest_of(registry.image)


@pytest.mark.parametrize("realm", ["http://tokens.example.org/", "ftp://127.0.0.1/", ""])
def test_a_password_goes_nowhere_in_the_clear(registry: Registry, tmp_path: Path, realm: str):
    log_in(tmp_path, registry.address)
    registry.challenge = f'Bearer realm="{realm}"'
    with pytest.raises(RegistryError):
        digest_of(registry.image)
    assert all(given is None for _, given in registry.asked)


def test_a_tag_that_is_not_there_is_an_error_with_the_address(registry: Registry):
    with pytest.raises(RegistryError, match=r"manifests/2\.0 answers 404"):
        digest_of(Image(registry.image.name, "2.0"))


def test_content_that_is_not_what_its_digest_says_is_refused(registry: Registry):
    registry.digest = f"sha256:{'0' * 64}"
    with pytest.raises(RegistryError, match="something else"):
        digest_of(registry.image)


def test_a_registry_that_does_not_answer_is_an_error():
    with pytest.raises(RegistryError, match="does not answer"):
        digest_of(Image("127.0.0.1:1/cifarray", "1.0"))


def test_the_table_is_filled_with_digests_and_keeps_the_rest(registry: Registry, tmp_path: Path):
    table = tmp_path / "kustomization.yaml"
    shutil.copy(manifests.TABLE, table)
    text = table.read_text().replace("ghcr.io/versity/versitygw", registry.image.name)
    table.write_text(text.replace("newTag: v1.8.0", 'newTag: "1.0"'))
    before = yaml.safe_load(table.read_text())
    manifests.fill_digests(table)
    entries = yaml.safe_load(table.read_text())["images"]
    assert [each["digest"] for each in entries] == [None, DIGEST]
    manifests.fill_digests(table)  # as it is when it is filled already
    assert yaml.safe_load(table.read_text())["images"] == entries
    entries[1]["digest"] = None
    assert entries == before["images"]
    assert table.read_text().startswith("# Every image")


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("cifarray:0.1.0", Image("cifarray", "0.1.0")),
        ("localhost/cifarray:1", Image("localhost/cifarray", "1")),
        ("reg.example.org:5000/a/b-c:v1.2", Image("reg.example.org:5000/a/b-c", "v1.2")),
        (f"reg.example.org/b@{DIGEST}", Image("reg.example.org/b", None, DIGEST)),
        (f"reg.example.org/b:1@{DIGEST}", Image("reg.example.org/b", "1", DIGEST)),
    ],
)
def test_an_exact_image_is_understood(text: str, image: Image):
    assert Image.parse(text) == image


@pytest.mark.parametrize(
    "text",
    ["cifarray", "cifarray:latest", "reg.example.org:5000/cifarray", "a b:1", "x@sha256:12", ""],
)
def test_an_image_that_may_move_is_refused_with_an_example(text: str):
    with pytest.raises(RegistryError, match="names no exact version; write it as in"):
        Image.parse(text)


@pytest.mark.parametrize(
    ("name", "host", "repository"),
    [
        ("cifarray", None, "cifarray"),
        ("team/cifarray", None, "team/cifarray"),
        ("localhost/cifarray", "localhost", "cifarray"),
        ("reg:5000/a/b", "reg:5000", "a/b"),
        ("ghcr.io/versity/versitygw", "ghcr.io", "versity/versitygw"),
    ],
)
def test_a_name_says_which_registry_it_means(name: str, host: str | None, repository: str):
    image = Image(name, "1")
    assert (image.host, image.repository) == (host, repository)
