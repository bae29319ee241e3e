"""Runs on a cluster whose store goes away for a while, and runs that fail again each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.kubectl import NAMESPACE, Kubectl, until
from tests.cluster.runs import PROFILE, STARTS_S, Runs, same_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
IN = ("-n", NAMESPACE)
AWAY_S = 136
"""So long a store's pod was away that used up all three lives of a run."""


@contextmanager
def store_away(kubectl: Kubectl) -> Iterator[None]:
    """The store has no pod within."""
    kubectl(*IN, "scale", "deployment", "cifarray-store", "--replicas=0")
    try:
        yield
    finally:
        kubectl(*IN, "scale", "deployment", "cifarray-store", "--replicas=1")
        until("the store", lambda: kubectl.is_ready("app.kubernetes.io/name=cifarray-store"))


def rayjob(kubectl: Kubectl, run: str) -> dict[str, Any]:
    """The status of a run's only RayJob."""
    (found,) = kubectl.json(*IN, "get", "rayjob", "-l", f"cifarray/run={run}")["items"]
    status: dict[str, Any] = found.get("status", {})
    return status


def test_a_store_that_is_away_for_minutes_costs_a_run_none_of_its_lives(
    runs: Runs, kubectl: Kubectl, undisturbed: dict[str, Any], name: str
):
    runs.begin(name)
    with store_away(kubectl), pytest.raises(TimeoutError):
        wait_for_an_end(kubectl, name, AWAY_S)
    assert same_figures(runs.wait_until_finished(name), undisturbed)
    assert rayjob(kubectl, name).get("failed", 0) == 0


def wait_for_an_end(kubectl: Kubectl, name: str, patience_s: float) -> None:
    """Raises: TimeoutError where the run's RayJob has not ended by then."""
    words = ("wait", "rayjob", "-l", f"cifarray/run={name}", f"--timeout={patience_s:.0f}s")
    ended = kubectl.type(*IN, *words, "--for=jsonpath={.status.failed}=1")
    if ended.returncode != 0:
        raise TimeoutError(ended.stderr)


def test_a_failure_that_comes_again_each_time_begins_no_further_cluster(
    runs: Runs, kubectl: Kubectl, name: str
):
    hopeless = ("--set", "optimizer.lr=1e30", "--set", "optimizer.name=sgd")
    more = ("--name", name, "--detach")
    runs.cifarray("submit", "train-digits", "--cluster", PROFILE, *hopeless, *more)
    until("the run to have failed", lambda: runs.state(name) == "failed", STARTS_S)
    ended = until("its RayJob to end", lambda: rayjob(kubectl, name).get("endTime"), 120.0)
    assert ended
    status = rayjob(kubectl, name)
    assert (status["jobDeploymentStatus"], status["jobStatus"]) == ("Complete", "STOPPED")
    assert status.get("failed", 0) == 0
    until("its pods to be gone", lambda: not runs.pods(name), 240.0)
    assert runs.state(name) == "failed"
