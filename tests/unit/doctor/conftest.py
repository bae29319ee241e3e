"""The small API server of the tests on Kubernetes, and a kubeconfig that leads nowhere."""

from tests.unit.backends.kubernetes.conftest import api, nowhere

__all__ = ["api", "nowhere"]
