"""A small API server for each test that asks for one, and what leads to it or to none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarray.backends.kubernetes.backend import open_cluster
from cifarray.backends.kubernetes.checks import Site
from cifarray.backends.kubernetes.client import Kube
from tests.unit.backends.kubernetes.api_server import (
    ApiServer,
    open_kube,
    serve_api,
    write_kubeconfig,
)
from tests.unit.backends.kubernetes.kube_requests import profile


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """The server, with KUBECONFIG set to reach it."""
    with serve_api() as server:
        path = write_kubeconfig(tmp_path / "kubeconfig", server.address)
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield server


@pytest.fixture
def kube(api: ApiServer) -> Kube:
    """Namespace `cifarray` of that server."""
    return open_kube()


@pytest.fixture
def site(api: ApiServer) -> Site:
    """A profile of two CPU workers on that server."""
    return Site(open_cluster(profile()))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubeconfig at all."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
