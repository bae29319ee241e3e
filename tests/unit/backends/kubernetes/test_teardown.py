"""How `cluster down` ends runs, what it keeps, and what finalizers may hold."""

from typing import Any

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.manifests import manifests
from cifarray.backends.kubernetes.setup import apply_all
from cifarray.backends.kubernetes.teardown import Removed, survey, take_down
from cifarray.errors import ClusterError
from tests.unit.backends.kubernetes.api_server import ApiServer

RAYJOBS = "/apis/ray.io/v1/namespaces/cifarray/rayjobs"
CLUSTERS = "/apis/ray.io/v1/namespaces/cifarray/rayclusters"
CLAIM = "/api/v1/namespaces/cifarray/persistentvolumeclaims/cifarray-store"
SECRETS = "/api/v1/namespaces/cifarray/secrets"
NAMESPACE = "/api/v1/namespaces/cifarray"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
OPERATORS = "/api/v1/pods"
OURS = {"labels": {"app.kubernetes.io/part-of": "cifarray"}}
FINALIZER = "ray.io/rayjob-finalizer"
OPERATOR_LABELS = {"app.kubernetes.io/component": "kuberay-operator"}


def set_up(api: ApiServer, kube: Kube) -> None:
    apply_all(kube, manifests("gpu"), lambda text: None)
    for name in ("cifarray-store", "cifarray-store-root"):
        api.put(f"{SECRETS}/{name}", metadata=OURS)
    api.put("/api/v1/namespaces/cifarray/configmaps/kube-root-ca.crt")
    api.asked.clear()


def taken_down(kube: Kube, keep_store: bool = False, **options: Any) -> Removed:
    given = {"remove_finalizers": False, "say": lambda text: None, "patience_s": 0.0, **options}
    return take_down(kube, survey(kube), keep_store, **given)


def deleted(api: ApiServer) -> list[str]:
    return [line.removeprefix("DELETE ") for line in api.requests("DELETE")]


def test_nothing_kept_means_that_the_namespace_goes_and_all_in_it(
    api: ApiServer, kube: Kube
) -> None:
    set_up(api, kube)
    removed = taken_down(kube)
    assert removed.kept == []
    assert "Namespace cifarray" in removed.deleted
    assert [path for path in api.objects if "cifarray" in path] == []


def test_runs_end_before_anything_else(api: ApiServer, kube: Kube) -> None:
    set_up(api, kube)
    for name in ("one", "two"):
        api.put(f"{RAYJOBS}/{name}", metadata=OURS)
    removed = taken_down(kube, keep_store=True)
    assert removed.ended == ["one", "two"]
    expected = [f"{RAYJOBS}/one", f"{RAYJOBS}/two", f"{CLUSTERS}/cifarray"]
    assert deleted(api)[:3] == expected


def test_a_kept_store_keeps_its_volume_its_keys_and_the_namespace(
    api: ApiServer, kube: Kube
) -> None:
    set_up(api, kube)
    removed = taken_down(kube, keep_store=True)
    left = {path for path in api.objects if "cifarray" in path}
    kept = {CLAIM, NAMESPACE, f"{SECRETS}/cifarray-store", f"{SECRETS}/cifarray-store-root"}
    assert left - {f"{NAMESPACE}/configmaps/kube-root-ca.crt"} == kept
    assert len(removed.kept) == len(kept)


def test_somebody_elses_objects_keep_the_namespace(api: ApiServer, kube: Kube) -> None:
    set_up(api, kube)
    api.put("/apis/apps/v1/namespaces/cifarray/deployments/theirs")
    api.put(f"{SECRETS}/their-registry")
    removed = taken_down(kube)
    assert removed.kept == ["Deployment theirs", "Secret their-registry", "Namespace cifarray"]
    assert CLAIM not in api.objects
    assert NAMESPACE in api.objects


def test_what_an_object_owns_is_nobodys_else(api: ApiServer, kube: Kube) -> None:
    set_up(api, kube)
    owned = {"ownerReferences": [{"kind": "RayJob", "name": "one"}]}
    api.put(f"{CLUSTERS}/one-abcde", metadata=owned)
    assert survey(kube).foreign == []
    assert survey(kube).clusters == ["cifarray"]


def test_a_second_time_there_is_nothing_to_do(api: ApiServer, kube: Kube) -> None:
    set_up(api, kube)
    taken_down(kube)
    assert taken_down(kube) == Removed()


def test_a_finalizer_that_nobody_removes_is_named_and_left(api: ApiServer, kube: Kube) -> None:
    set_up(api, kube)
    api.put(f"{RAYJOBS}/held", metadata={**OURS, "finalizers": [FINALIZER]})
    with pytest.raises(ClusterError) as caught:
        taken_down(kube)
    assert f"RayJob held is held by {FINALIZER}" in str(caught.value)
    assert "--remove-finalizers" in str(caught.value)
    assert deleted(api) == [f"{RAYJOBS}/held"]
    assert f"{RAYJOBS}/held" in api.objects


def test_a_finalizer_is_removed_when_that_is_asked_for(api: ApiServer, kube: Kube) -> None:
    set_up(api, kube)
    api.put(f"{RAYJOBS}/held", metadata={**OURS, "finalizers": [FINALIZER]})
    told: list[str] = []
    removed = taken_down(kube, remove_finalizers=True, say=told.append)
    assert removed.ended == ["held"]
    assert any(FINALIZER in text for text in told)
    assert f"{RAYJOBS}/held" not in api.objects


def test_priority_classes_stay_while_another_namespace_needs_them(
    api: ApiServer, kube: Kube
) -> None:
    set_up(api, kube)
    api.put("/api/v1/namespaces/team-b", metadata=OURS)
    taken_down(kube)
    assert f"{PRIORITIES}/cifarray-head" in api.objects
    del api.objects["/api/v1/namespaces/team-b"]
    assert "PriorityClass cifarray-head" in taken_down(kube).deleted


def test_kinds_that_the_cluster_does_not_know_are_passed_over(api: ApiServer, kube: Kube) -> None:
    from tests.unit.backends.kubernetes.api_server import refusal

    set_up(api, kube)
    for path in (RAYJOBS, CLUSTERS):
        api.script(f"GET {path}", *[refusal(404, "no such kind")] * 3)
    assert survey(kube).rayjobs == []
