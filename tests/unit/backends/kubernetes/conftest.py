"""A small API server for each test that asks for one, and the kubeconfig that leads to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarray.backends.kubernetes.client import Kube
from tests.unit.backends.kubernetes.api_server import (
    ApiServer,
    open_kube,
    serve_api,
    write_kubeconfig,
)


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
