"""How `cluster up` applies: the order, the autoscaler's scale, other managers' fields."""

import copy
from typing import Any

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.manifests import manifests
from cifarray.backends.kubernetes.setup import (
    ORDER,
    SCALED,
    Applied,
    apply_all,
    await_ended_namespace,
    in_order,
    keep_scale,
)
from cifarray.errors import ClusterError
from tests.unit.backends.kubernetes.api_server import (
    GROUPS,
    Answer,
    ApiServer,
    Asked,
    conflict,
    refusal,
)

CLUSTER = "/apis/ray.io/v1/namespaces/cifarray/rayclusters/cifarray"
STORE = "/apis/apps/v1/namespaces/cifarray/deployments/cifarray-store"
NAMESPACE = "/api/v1/namespaces/cifarray"
KUBECTL = "kubectl-client-side-apply"
AUTOSCALER = "python-requests"


def one(kind: str) -> dict[str, Any]:
    found = next(each for each in manifests("gpu") if each["kind"] == kind)
    return copy.deepcopy(found)


def applied(kube: Kube, *documents: dict[str, Any], force: bool = False) -> Applied:
    return apply_all(kube, documents, lambda text: None, force)


def held(api: ApiServer, replicas: int = 3, **group: Any) -> dict[str, Any]:
    """The RayCluster as the autoscaler and the API server's defaults have left it."""
    live = one("RayCluster")
    live["spec"]["workerGroupSpecs"][0] |= {"replicas": replicas, "numOfHosts": 1, **group}
    return api.put(CLUSTER, spec=live["spec"])


def groups_of(asked: Asked) -> list[dict[str, Any]]:
    specs: list[dict[str, Any]] = asked.body["spec"]["workerGroupSpecs"]
    return specs


def patches(api: ApiServer) -> list[Asked]:
    return [asked for asked in api.asked if asked.method == "PATCH"]


def test_what_others_need_comes_first() -> None:
    kinds = [each["kind"] for each in in_order(list(reversed(manifests("gpu"))))]
    assert set(kinds) <= set(ORDER)
    assert kinds == sorted(kinds, key=ORDER.index)
    assert kinds[0] == "Namespace" and kinds[-1] == "RayCluster"


def test_a_kind_that_nobody_has_placed_comes_last() -> None:
    gizmo = {"kind": "Gizmo", "metadata": {"name": "one"}}
    assert in_order([gizmo, *manifests("local")])[-1] == gizmo


def test_applying_twice_changes_nothing_the_second_time(api: ApiServer, kube: Kube) -> None:
    documents = manifests("gpu")
    first = apply_all(kube, documents, print)
    assert len(first.created) == len(documents)
    second = apply_all(kube, documents, print)
    assert len(second.unchanged) == len(documents)
    assert not second.settled


def test_every_object_is_applied_from_the_server_without_force(api: ApiServer, kube: Kube) -> None:
    apply_all(kube, manifests("local"), print)
    assert len(patches(api)) == len(manifests("local"))
    assert {asked.query["force"] for asked in patches(api)} == {"false"}


def test_the_autoscalers_replicas_stay(api: ApiServer, kube: Kube) -> None:
    held(api, 3, scaleStrategy={"workersToDelete": ["one"]})
    applied(kube, one("RayCluster"))
    (asked,) = patches(api)
    first, second = groups_of(asked)
    assert (first["replicas"], first["scaleStrategy"]) == (3, {"workersToDelete": ["one"]})
    assert second["replicas"] == 0
    assert asked.body["metadata"]["resourceVersion"] == "1"


def test_replicas_beyond_the_new_bounds_are_brought_inside() -> None:
    wanted, live = one("RayCluster"), one("RayCluster")
    live["metadata"]["resourceVersion"] = "7"
    live["spec"]["workerGroupSpecs"][0]["replicas"] = 99
    kept = keep_scale(wanted, live)["spec"]["workerGroupSpecs"][0]
    assert kept["replicas"] == wanted["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    assert wanted["spec"]["workerGroupSpecs"][0]["replicas"] == 0  # it was not changed itself


def test_a_cluster_that_is_scaled_between_reading_and_applying_is_read_again(
    api: ApiServer, kube: Kube
) -> None:
    held(api, 1)

    def scale_once(asked: Asked) -> None:
        if asked.method == "PATCH" and api.version == 1:
            held(api, 4)

    api.on_request = scale_once
    applied(kube, one("RayCluster"))
    assert api.requests("PATCH") == [f"PATCH {CLUSTER}"] * 2
    assert groups_of(patches(api)[1])[0]["replicas"] == 4


def test_a_scripted_conflict_with_kubectl_apply_is_forced_and_told(
    api: ApiServer, kube: Kube
) -> None:
    api.script(f"PATCH {STORE}", conflict(KUBECTL, ".spec.replicas", ".spec.strategy"))
    told: list[str] = []
    done = apply_all(kube, [one("Deployment")], told.append)
    assert [asked.query["force"] for asked in patches(api)] == ["false", "true"]
    sentence = (
        "Deployment cifarray-store: took .spec.replicas, .spec.strategy over from `kubectl apply`"
    )
    assert done.settled == told == [sentence]


def test_a_scripted_conflict_with_the_autoscaler_is_forced_with_its_scale(
    api: ApiServer, kube: Kube
) -> None:
    held(api, 2)
    api.script(f"PATCH {CLUSTER}", conflict(AUTOSCALER, SCALED))
    wanted = one("RayCluster")
    wanted["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] = "new:1"
    (sentence,) = applied(kube, wanted).settled
    assert "Ray's autoscaler, keeping its scale" in sentence
    last = patches(api)[-1]
    assert last.query["force"] == "true"
    assert groups_of(last)[0]["replicas"] == 2


def test_a_scripted_conflict_over_defaults_alone_is_forced_whoever_scaled(
    api: ApiServer, kube: Kube
) -> None:
    held(api, 2)
    api.script(f"PATCH {CLUSTER}", conflict("some-other-scaler", SCALED))
    assert applied(kube, one("RayCluster")).settled


def test_a_scripted_conflict_with_a_person_is_refused_and_names_who_and_what(
    api: ApiServer, kube: Kube
) -> None:
    api.script(f"PATCH {STORE}", conflict("kubectl-edit", ".spec.replicas"))
    with pytest.raises(ClusterError) as caught:
        applied(kube, one("Deployment"))
    assert "Deployment cifarray-store: .spec.replicas is managed by kubectl-edit" in str(
        caught.value
    )
    assert "--force-conflicts" in str(caught.value)
    assert len(patches(api)) == 1


def test_a_scripted_conflict_with_a_persons_group_of_workers_is_refused(
    api: ApiServer, kube: Kube
) -> None:
    held(api, 2, maxReplicas=77)
    api.script(f"PATCH {CLUSTER}", conflict("kubectl-edit", SCALED))
    with pytest.raises(ClusterError, match="managed by kubectl-edit"):
        applied(kube, one("RayCluster"))


def test_one_persons_field_among_kubectls_is_enough_to_refuse(api: ApiServer, kube: Kube) -> None:
    mixed = conflict(KUBECTL, ".spec.replicas")
    mixed.body["details"]["causes"] += conflict("flux", ".spec.strategy").body["details"]["causes"]
    api.script(f"PATCH {STORE}", mixed)
    with pytest.raises(ClusterError, match=r"\.spec\.strategy is managed by flux"):
        applied(kube, one("Deployment"))


def test_fields_are_taken_over_from_anybody_when_that_is_asked_for(
    api: ApiServer, kube: Kube
) -> None:
    applied(kube, one("Deployment"), force=True)
    assert patches(api)[0].query["force"] == "true"


def test_nothing_is_applied_where_the_operators_kinds_are_not_known(
    api: ApiServer, kube: Kube
) -> None:
    api.script(f"GET {GROUPS}", refusal(404, "the server could not find the requested resource"))
    with pytest.raises(ClusterError, match=r"install KubeRay's operator 1\.7 or newer"):
        apply_all(kube, manifests("gpu"), print)
    assert not patches(api)


def test_a_scripted_403_says_whose_right_it_is(api: ApiServer, kube: Kube) -> None:
    api.script(f"PATCH {NAMESPACE}", refusal(403, "namespaces is forbidden"))
    with pytest.raises(
        ClusterError, match="Namespace cifarray may not be applied with your rights"
    ) as caught:
        applied(kube, one("Namespace"))
    assert "administrator of the cluster" in str(caught.value)


def test_a_namespace_that_is_still_ending_is_waited_for(api: ApiServer, kube: Kube) -> None:
    ending = api.put(NAMESPACE, metadata={"deletionTimestamp": "2026-11-23T04:00:00Z"})
    api.script(f"GET {NAMESPACE}", Answer(200, copy.deepcopy(ending)))
    del api.objects[NAMESPACE]
    told: list[str] = []
    await_ended_namespace(kube, told.append)
    assert told == ["namespace cifarray is still being deleted ..."]
    assert len(api.asked) == 2


def test_a_namespace_that_does_not_end_says_what_holds_it(api: ApiServer, kube: Kube) -> None:
    condition = {
        "type": "NamespaceFinalizersRemaining",
        "status": "True",
        "message": "Some content has finalizers remaining: ray.io/rayjob-finalizer in 1 instances",
    }
    api.put(
        NAMESPACE,
        metadata={"deletionTimestamp": "2026-11-23T04:00:00Z"},
        status={"conditions": [condition]},
    )
    with pytest.raises(ClusterError, match=r"ray\.io/rayjob-finalizer in 1 instances"):
        await_ended_namespace(kube, lambda text: None, patience_s=0.0)


PRIORITY = "/apis/scheduling.k8s.io/v1/priorityclasses/cifarray-head"
OF_0_1_0 = {"value": 1000, "preemptionPolicy": "PreemptLowerPriority"}


def test_a_priority_class_that_an_older_version_shipped_is_made_anew(
    api: ApiServer, kube: Kube
) -> None:
    before = api.put(PRIORITY, **OF_0_1_0)["metadata"]["uid"]
    done = applied(kube, one("PriorityClass"))
    assert done.changed == ["PriorityClass cifarray-head"]
    made = api.objects[PRIORITY]
    assert (made["value"], made["preemptionPolicy"]) == (10, "Never")
    assert made["metadata"]["uid"] != before
    assert applied(kube, one("PriorityClass")).unchanged == ["PriorityClass cifarray-head"]


@pytest.mark.parametrize(
    "given", [{"value": 70000}, {"value": 1000, "preemptionPolicy": "Never"}, {}]
)
def test_a_priority_class_with_an_administrators_values_stays(
    api: ApiServer, kube: Kube, given: dict[str, Any]
) -> None:
    before = api.put(PRIORITY, **given)
    done = applied(kube, one("PriorityClass"))
    assert api.requests("PATCH", "DELETE") == []
    assert api.objects[PRIORITY] == before
    (sentence,) = done.settled
    assert sentence.startswith("PriorityClass cifarray-head: kept as the administrator created it")
