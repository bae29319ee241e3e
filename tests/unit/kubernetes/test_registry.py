"""Digests come from a registry by whichever tool is installed."""

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from scripts import manifests
from scripts.manifests import Image, RegistryError, digest_of

CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}).encode()
TYPE = "application/vnd.oci.image.manifest.v1+json"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": len(CONFIG),
            "digest": sha256(CONFIG),
        },
        "layers": [],
    }
).encode()
DIGEST = sha256(MANIFEST)
IMAGE = Image("registry.example.org/team/cifarray", "1.0")
Tool = Callable[..., Path]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Make a tool, the only one on PATH; it notes its command line and prints what it is given."""
    folder, asked = tmp_path / "bin", tmp_path / "asked"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, printed: str = DIGEST, errors: str = "", code: int = 0) -> Path:
        (folder / name).write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n"
            f"pathlib.Path({str(asked)!r}).write_text(' '.join(sys.argv[1:]))\n"
            f"print({printed!r})\nprint({errors!r}, file=sys.stderr)\nsys.exit({code})\n"
        )
        (folder / name).chmod(0o755)
        return asked

    return make


@pytest.fixture
def registry() -> Iterator[str]:
    """The address of a registry on loopback that has one image, team/cifarray:1.0."""
    content = {
        "/v2/": (b"{}", "application/json"),
        "/v2/team/cifarray/manifests/1.0": (MANIFEST, TYPE),
        f"/v2/team/cifarray/blobs/{sha256(CONFIG)}": (CONFIG, "application/octet-stream"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, kind = content.get(self.path, (b"{}", "application/json"))
            self.send_response(200 if self.path in content else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("skopeo", "inspect --no-tags --format {{.Digest}} docker://NAME:1.0"),
        ("crane", "digest NAME:1.0"),
        ("docker", "buildx imagetools inspect --format {{.Manifest.Digest}} NAME:1.0"),
    ],
)
def test_whichever_tool_is_there_is_asked(tool: Tool, name: str, line: str) -> None:
    asked = tool(name)
    assert digest_of(IMAGE) == DIGEST
    assert asked.read_text() == line.replace("NAME", IMAGE.name)


@pytest.mark.parametrize(
    ("name", "option"), [("skopeo", "--tls-verify=false"), ("crane", "--insecure")]
)
def test_a_registry_of_this_machine_is_asked_without_tls(
    tool: Tool, name: str, option: str
) -> None:
    asked = tool(name)
    digest_of(Image("localhost:5000/cifarray", "1.0"))
    assert option in asked.read_text().split()


def test_the_first_of_several_tools_is_asked(tool: Tool) -> None:
    tool("docker", code=1)
    tool("skopeo")
    assert digest_of(IMAGE) == DIGEST


def test_without_a_tool_the_error_says_what_to_install(tool: Tool) -> None:
    with pytest.raises(RegistryError, match="one of skopeo, crane, docker; install skopeo"):
        digest_of(IMAGE)


def test_a_tool_that_fails_is_one_sentence_with_its_last_word(tool: Tool) -> None:
    tool("skopeo", printed="", errors="a warning\nunauthorized: log in first", code=1)
    with pytest.raises(RegistryError, match=r"`skopeo inspect .*cifarray:1\.0` .*: unauthorized"):
        digest_of(IMAGE)


def test_what_is_no_digest_is_refused(tool: Tool) -> None:
    tool("crane", printed="sha256:12")
    with pytest.raises(RegistryError, match="names no digest: sha256:12"):
        digest_of(IMAGE)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="requires skopeo")
def test_skopeo_itself_names_the_digest(registry: str) -> None:
    assert digest_of(Image(f"{registry}/team/cifarray", "1.0")) == DIGEST
    with pytest.raises(RegistryError, match="cifarray:2"):
        digest_of(Image(f"{registry}/team/cifarray", "2.0"))


def test_the_table_is_filled_with_digests_and_keeps_the_rest(tool: Tool, tmp_path: Path) -> None:
    tool("crane")
    table = tmp_path / "kustomization.yaml"
    shutil.copy(manifests.TABLE, table)
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
    ("name", "host"),
    [
        ("cifarray", None),
        ("team/cifarray", None),
        ("localhost/cifarray", "localhost"),
        ("reg:5000/a/b", "reg:5000"),
        ("ghcr.io/versity/versitygw", "ghcr.io"),
    ],
)
def test_a_name_says_which_registry_it_means(name: str, host: str | None) -> None:
    assert Image(name, "1").host == host
