"""The small API server of the tests on Kubernetes, and a site that is looked at through it."""

from pathlib import Path

import pytest

from cifarray.backends.kubernetes.backend import open_cluster
from cifarray.backends.kubernetes.checks import Site
from tests.unit.backends.kubernetes.api_server import ApiServer
from tests.unit.backends.kubernetes.conftest import api
from tests.unit.backends.kubernetes.kube_requests import profile

__all__ = ["api"]


@pytest.fixture
def site(api: ApiServer) -> Site:
    """A profile of two CPU workers on that server."""
    return Site(open_cluster(profile()))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubeconfig at all."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
