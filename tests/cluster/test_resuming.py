"""Runs that lose a pod, or everything, and end as if nothing had happened."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kubectl import NAMESPACE, Kubectl, until
from tests.cluster.runs import PROFILE, Runs, profile_file, same_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STORE = "app.kubernetes.io/name=cifarray-store"
SHARED = "ray.io/cluster=cifarray"


@pytest.mark.parametrize("victim", ["worker", "head", "store"])
def test_a_run_of_its_own_cluster_survives_its_pods(
    runs: Runs, kubectl: Kubectl, undisturbed: dict[str, Any], name: str, victim: str
):
    runs.begin(name)
    found = kubectl.pods(STORE) if victim == "store" else runs.pods(name, victim)
    kubectl.kill(found[0])
    assert same_figures(runs.wait_until_finished(name), undisturbed)


@pytest.mark.parametrize("victim", ["worker", "store"])
def test_a_run_on_the_long_lived_cluster_survives_its_pods(
    runs: Runs,
    kubectl: Kubectl,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    name: str,
    victim: str,
):
    runs.begin(name, on=profile_file(tmp_path, mode="ray-jobs"))
    labels = STORE if victim == "store" else f"{SHARED},ray.io/node-type=worker"
    kubectl.kill(kubectl.pods(labels)[0])
    assert same_figures(runs.wait_until_finished(name), undisturbed)


def test_a_head_that_is_asked_to_go_takes_no_run_with_it(
    runs: Runs, kubectl: Kubectl, undisturbed: dict[str, Any], name: str
):
    """As an eviction asks: with the time of its grace, in which Ray ends the driver."""
    runs.begin(name)
    [head] = runs.pods(name, "head")
    kubectl("-n", NAMESPACE, "delete", "pod", head["metadata"]["name"], "--wait=false")
    assert same_figures(runs.wait_until_finished(name), undisturbed)


def test_a_run_whose_rayjob_is_deleted_waits_to_be_resumed(
    runs: Runs, kubectl: Kubectl, undisturbed: dict[str, Any], name: str
):
    """KubeRay asks the driver to stop first; one that has no time to say so is lost."""
    runs.begin(name)
    kubectl("-n", NAMESPACE, "delete", "rayjob", "-l", f"cifarray/run={name}")
    until("the run to be over", lambda: runs.state(name) in ("stopped", "lost"), 180.0)
    assert same_figures(runs.resume(name), undisturbed)


def test_a_run_on_the_long_lived_cluster_is_lost_with_its_head_until_it_is_resumed(
    runs: Runs, kubectl: Kubectl, undisturbed: dict[str, Any], tmp_path: Path, name: str
):
    runs.begin(name, on=profile_file(tmp_path, mode="ray-jobs"))
    labels = f"{SHARED},ray.io/node-type=head"
    kubectl.kill(kubectl.pods(labels)[0])
    until("the RayCluster's new head", lambda: kubectl.is_ready(labels))
    assert f"`cifarray resume {name}`" in runs.wait_until_lost(name)
    assert "lost" in runs.cifarray("runs", "--cluster", PROFILE)
    assert same_figures(runs.resume(name), undisturbed)
