"""A proxy in the environment is for the outside: every client reaches loopback without it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.data.download import Download, download
from cifarray.data.progress import Silent
from cifarray.errors import ArchiveError, ClusterError
from cifarray.proxies import DIRECT, is_loopback, loopback_exceptions, spare_loopback
from cifarray.spec.profile import KubernetesSpec
from cifarray.store import Store
from tests.archive_server import serve_archives
from tests.loopback import answering, cutting_proxy
from tests.proxies import proxied
from tests.s3 import S3Server
from tests.unit.backends.kubernetes.api_server import serve_api, write_kubeconfig

__all__ = ["proxied"]


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8265", True),
        ("https://localhost/x", True),
        ("http://localhost.example", False),
        ("http://10.0.0.1:8265", False),
        ("https://s3.amazonaws.com", False),
        (None, False),
    ],
)
def test_loopback_is_this_machine_alone(url: str | None, near: bool) -> None:
    assert is_loopback(url) is near


@pytest.mark.parametrize(
    ("given", "spared"),
    [
        ({"PATH": "/bin"}, None),
        ({"HTTP_PROXY": "http://p:1"}, ",".join(DIRECT)),
        ({"all_proxy": "socks5://p:1"}, ",".join(DIRECT)),
        (
            {"https_proxy": "http://p:1", "no_proxy": "a, localhost", "NO_PROXY": ".b"},
            "a,localhost,.b,127.0.0.1,::1,[::1]",
        ),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "*"),
    ],
)
def test_the_exceptions_that_are_there_are_kept(
    given: Mapping[str, str], spared: str | None
) -> None:
    wanted = {} if spared is None else {"no_proxy": spared, "NO_PROXY": spared}
    assert loopback_exceptions(given) == wanted


def test_a_download_from_the_outside_goes_through_the_proxy(
    proxied: list[str], tmp_path: Path
) -> None:
    spare_loopback()
    wanted = Download("http://archive.example/a.zip", tmp_path / "a.zip", 10, pauses_s=())
    with pytest.raises(ArchiveError, match="502"):
        download(wanted, Silent())
    assert proxied == ["GET http://archive.example/a.zip"]


def test_a_download_from_this_machine_does_not(proxied: list[str], tmp_path: Path) -> None:
    spare_loopback()
    with serve_archives() as server:
        server.files["a.zip"] = b"content"
        got = download(Download(server.url("a.zip"), tmp_path / "a.zip", 10), Silent())
    assert got.read_bytes() == b"content"
    assert proxied == []


def test_a_socks_proxy_for_all_beside_one_for_http_is_left_to_others(
    proxied: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", os.environ["http_proxy"].removeprefix("http://"))
    with pytest.raises(ArchiveError, match="502"):
        download(Download("http://archive.example/a", tmp_path / "a", 10, pauses_s=()), Silent())
    assert proxied == ["GET http://archive.example/a"]


@pytest.mark.parametrize(
    ("proxy", "words"), [("socks5://p:1", "of scheme socks5"), ("http://p:port", "[Pp]ort")]
)
def test_a_proxy_that_cannot_be_one_is_a_sentence_for_both_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ArchiveError, match=f"cannot be asked .*{words}.*; check the address"):
        download(Download("http://archive.example/a", tmp_path / "a", 10), Silent())
    with pytest.raises(ClusterError, match=f"does not answer .*{words}"):
        RayJobs("http://jobs.example:8265", patience_s=0.1).version()


def test_a_host_that_the_environment_excepts_is_reached_directly(
    proxied: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", ".example")
    with pytest.raises(ArchiveError, match="cannot be downloaded"):
        download(Download("http://archive.example/a", tmp_path / "a", 10, pauses_s=()), Silent())
    assert proxied == []


def test_a_bucket_on_this_machine_is_reached_by_both_clients(
    s3: S3Server, proxied: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NO_PROXY", "127.0.0.1")  # for the test's own client
        store = s3.new_store()
    store.write("a/b", b"content")
    with store.filesystem().open_input_stream(store.path("a/b")) as stream:
        assert stream.read() == b"content"
    with store.filesystem().open_output_stream(store.path("a/c")) as stream:
        stream.write(b"more")
    assert store.read("a/c") == b"more"
    assert proxied == []


def test_a_bucket_elsewhere_is_reached_through_the_proxy_by_both_clients(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket()
    with cutting_proxy(s3.endpoint) as proxy:  # whatever host it is asked for
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.address)
        store = Store.open(f"s3://{bucket}/p", "http://elsewhere")
        store.write("a", b"content")
        passed = proxy.passed_bytes
        with store.filesystem().open_input_stream(store.path("a")) as stream:
            assert stream.read() == b"content"
    assert 0 < passed < proxy.passed_bytes


def test_the_jobs_api_of_this_machine_is_asked_directly(proxied: list[str]) -> None:
    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, json.dumps({"ray_version": "2.60.0", "status": "SUCCEEDED"}).encode()

    with answering(answer) as address:
        jobs = RayJobs(address)
        assert jobs.version()["ray_version"] == "2.60.0"
        list(jobs.tail("a-1"))
    assert proxied == []


def test_the_jobs_api_of_another_machine_is_asked_through_the_proxy(proxied: list[str]) -> None:
    jobs = RayJobs("http://jobs.example:8265", patience_s=0.1)
    with pytest.raises(ClusterError, match="knows nobody"):
        jobs.version()
    with pytest.raises(ClusterError, match="knows nobody"):
        list(jobs.tail("a-1"))
    assert proxied[0] == "GET http://jobs.example:8265/api/version"
    assert any(request.endswith("jobs.example:8265/api/jobs/a-1/logs/tail") for request in proxied)


def test_an_api_server_on_this_machine_is_asked_directly(
    proxied: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_loopback()
    with serve_api() as server:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", server.address)))
        kube = Kube.open(KubernetesSpec(context="tests"), patience_s=2.0)
        assert kube.list("Pod") == []
    assert proxied == []
