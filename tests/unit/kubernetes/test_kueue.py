"""Queued runs are as Kueue wants them, and the RayCluster is none of its business."""

import pytest

from cifarray.backends.kubernetes.pods import KUEUE_QUEUE
from cifarray.backends.kubernetes.rayjob import rayjob
from tests.unit.backends.kubernetes.kube_requests import profile
from tests.unit.kubernetes.ray_pods import Manifest
from tests.unit.kubernetes.shipped import OVERLAYS, component, overlay, request


def queue(kind: str) -> Manifest:
    """The component's object of a kind."""
    (found,) = (each for each in component("kueue") if each["kind"] == kind)
    return found


def test_a_queued_run_starts_suspended_in_the_component_s_queue():
    run = rayjob(request(profile(queue="cifarray")), 1)
    assert run["metadata"]["labels"][KUEUE_QUEUE] == queue("LocalQueue")["metadata"]["name"]
    assert run["spec"]["suspend"] is True


def test_a_queued_run_gives_its_cluster_back_and_has_no_autoscaler():
    run = rayjob(request(profile(queue="cifarray")), 1)["spec"]
    assert run["shutdownAfterJobFinishes"] is True
    assert not {"deletionRules", "deletionStrategy", "clusterSelector"} & set(run)
    assert "enableInTreeAutoscaling" not in run["rayClusterSpec"]
    groups = {group["groupName"] for group in run["rayClusterSpec"]["workerGroupSpecs"]}
    assert "head" not in groups  # Kueue's own name for the head's pods


def test_a_run_without_a_queue_waits_for_nobody():
    run = rayjob(request(profile()), 1)
    assert KUEUE_QUEUE not in run["metadata"]["labels"]
    assert "suspend" not in run["spec"]


def test_the_queues_belong_together_and_none_is_one_that_kueue_labels_others_with():
    local, shared = queue("LocalQueue"), queue("ClusterQueue")
    assert local["spec"]["clusterQueue"] == shared["metadata"]["name"]
    (group,) = shared["spec"]["resourceGroups"]
    assert group["flavors"][0]["name"] == queue("ResourceFlavor")["metadata"]["name"]
    assert group["coveredResources"] == [each["name"] for each in group["flavors"][0]["resources"]]
    assert local["metadata"]["name"] != "default"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_raycluster_is_in_no_queue_since_it_has_an_autoscaler(name: str):
    (cluster,) = (each for each in overlay(name) if each["kind"] == "RayCluster")
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    assert KUEUE_QUEUE not in cluster["metadata"]["labels"]
