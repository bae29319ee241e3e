"""On a cluster that others use too: nobody is evicted, and the store is not evicted lightly."""

import pytest

from cifarray.backends.kubernetes.rayjob import rayjob
from tests.unit.kubernetes.ray_pods import Manifest, pods_of
from tests.unit.kubernetes.shipped import OVERLAYS, kubernetes_profiles, overlay, request

STORE = {"app.kubernetes.io/name": "cifarray-store"}


def of_kind(name: str, kind: str) -> dict[str, Manifest]:
    """An overlay's objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in overlay(name) if each["kind"] == kind}


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_pod_of_ours_evicts_another(name: str):
    classes = of_kind(name, "PriorityClass")
    assert {each["preemptionPolicy"] for each in classes.values()} == {"Never"}
    assert not any(each.get("globalDefault") for each in classes.values())


@pytest.mark.parametrize("name", OVERLAYS)
def test_heads_and_store_outrank_workers_and_workers_nobody(name: str):
    ranks = {rank: each["value"] for rank, each in of_kind(name, "PriorityClass").items()}
    assert ranks["cifarray-head"] > ranks["cifarray-worker"] >= 0
    assert ranks["cifarray-worker"] == 0  # as of pods without a class
    runs = [rayjob(request(each), 1) for each in kubernetes_profiles()]
    for pod in pods_of([*overlay(name), *runs]):
        container = pod.containers[0]["name"]
        if container in ("ray-head", "gateway"):
            assert pod.spec["priorityClassName"] == "cifarray-head"
        elif container == "ray-worker":
            assert pod.spec["priorityClassName"] == "cifarray-worker"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_store_has_a_disruption_budget_wherever_there_is_one(name: str):
    stores = of_kind(name, "Deployment")
    budgets = of_kind(name, "PodDisruptionBudget")
    assert set(budgets) == {"cifarray-head", *stores}
    for store in stores.values():
        spec = budgets[store["metadata"]["name"]]["spec"]
        assert spec == {
            "minAvailable": store["spec"]["replicas"],
            "selector": store["spec"]["selector"],
        }
        assert store["spec"]["selector"]["matchLabels"] == STORE
