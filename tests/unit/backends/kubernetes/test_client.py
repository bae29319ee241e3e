"""How the API server is spoken to, and what becomes of its bad answers."""

import time
from pathlib import Path

import pytest
from kubernetes import client

from cifarray.backends.kubernetes.client import KINDS, Kube, RefusedError
from cifarray.errors import ClusterError
from tests.unit.backends.kubernetes.api_server import (
    TOKEN,
    Answer,
    ApiServer,
    as_json,
    conflict,
    open_kube,
    refusal,
    write_kubeconfig,
)

PODS = "/api/v1/namespaces/cifarray/pods"
BUSY = refusal(429, "too many requests")
BUSY_FOR_A_SECOND = Answer(429, BUSY.body, {"Retry-After": "1"})
POD = as_json(
    client.V1Pod(
        api_version="v1",
        kind="Pod",
        metadata=client.V1ObjectMeta(name="one"),
        spec=client.V1PodSpec(containers=[client.V1Container(name="only")]),
    )
)


def test_an_object_that_was_made_is_found_listed_and_deleted(api: ApiServer, kube: Kube) -> None:
    kube.create(POD)
    found = kube.get("Pod", "one")
    assert found is not None and found["spec"] == POD["spec"]
    assert [each["metadata"]["name"] for each in kube.list("Pod")] == ["one"]
    assert kube.delete("Pod", "one")
    assert kube.get("Pod", "one") is None
    assert not kube.delete("Pod", "one")


def test_requests_carry_the_callers_token_and_no_repr_shows_it(api: ApiServer, kube: Kube) -> None:
    kube.version()
    assert api.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(kube)


def test_the_kubeconfig_of_the_moment_and_the_profiles_context_count(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_kube().context == "tests"
    other = write_kubeconfig(tmp_path / "other", api.address, ("mine", "theirs"))
    monkeypatch.setenv("KUBECONFIG", str(other))
    assert open_kube().context == "mine"
    assert open_kube(context="theirs").context == "theirs"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "apiVersion: v1", "contexts: 3"])
def test_a_kubeconfig_that_leads_nowhere_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ClusterError, match="set KUBECONFIG") as caught:
        open_kube()
    assert "\n" not in str(caught.value)


def test_a_context_that_the_kubeconfig_lacks_is_named(api: ApiServer) -> None:
    with pytest.raises(ClusterError, match="with a context absent found"):
        open_kube(context="absent")


def test_a_scripted_429_is_asked_again_after_the_time_that_it_names(
    api: ApiServer, kube: Kube
) -> None:
    api.script(f"GET {PODS}", BUSY_FOR_A_SECOND)
    start = time.monotonic()
    assert kube.list("Pod") == []
    assert time.monotonic() - start >= 1.0
    assert len(api.asked) == 2


def test_a_scripted_429_that_names_a_time_beyond_ones_patience_is_given_up(api: ApiServer) -> None:
    api.script(f"GET {PODS}", Answer(429, BUSY.body, {"Retry-After": "60"}))
    start = time.monotonic()
    with pytest.raises(RefusedError, match="429") as caught:
        open_kube(patience_s=1.0).list("Pod")
    assert caught.value.code == 429
    assert time.monotonic() - start < 1.0


def test_a_post_is_sent_again_after_a_scripted_429(api: ApiServer, kube: Kube) -> None:
    api.script(f"POST {PODS}", BUSY)
    kube.create(POD)
    assert api.requests() == [f"POST {PODS}"] * 2


def test_a_scripted_500_of_a_get_is_asked_again(api: ApiServer, kube: Kube) -> None:
    api.script(f"GET {PODS}", refusal(500, "etcd is slow"), refusal(500, "etcd is slow"))
    assert kube.list("Pod") == []
    assert len(api.asked) == 3


def test_a_scripted_cut_connection_of_a_get_is_tried_again(api: ApiServer, kube: Kube) -> None:
    api.script(f"GET {PODS}", Answer(cut=True))
    assert kube.list("Pod") == []


def test_a_scripted_403_says_what_is_lacking(api: ApiServer, kube: Kube) -> None:
    api.forbid(f"GET {PODS}/one")
    with pytest.raises(RefusedError, match=r"cifarray-submitter") as caught:
        kube.get("Pod", "one")
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
    assert caught.value.message == f"GET {PODS}/one is forbidden"


def test_a_scripted_409_names_manager_and_field(api: ApiServer, kube: Kube) -> None:
    path = "/apis/apps/v1/namespaces/cifarray/deployments/store"
    api.script(f"PATCH {path}", conflict("kubectl-edit", ".spec.replicas"))
    with pytest.raises(RefusedError) as caught:
        kube.apply({"kind": "Deployment", "metadata": {"name": "store"}})
    assert caught.value.reason == "Conflict"
    assert caught.value.causes == [
        {
            "field": ".spec.replicas",
            "message": 'conflict with "kubectl-edit" using apps/v1',
            "reason": "FieldManagerConflict",
        }
    ]


def test_an_apply_is_a_server_side_apply_of_ours(api: ApiServer, kube: Kube) -> None:
    kube.apply({"kind": "Deployment", "metadata": {"name": "store"}}, force=True)
    (asked,) = api.asked
    assert asked.query == {"fieldManager": "cifarray", "force": "true"}
    assert asked.headers["Content-Type"] == "application/apply-patch+yaml"


def page(*names: str, after: str = "") -> Answer:
    items = [{"metadata": {"name": name}} for name in names]
    return Answer(200, {"metadata": {"continue": after} if after else {}, "items": items})


def test_scripted_pages_are_read_to_the_last(api: ApiServer, kube: Kube) -> None:
    api.script(f"GET {PODS}", page("a", "b", after="more"), page("c"))
    found = kube.list("Pod", {"app": "x", "role": "y"})
    assert [each["metadata"]["name"] for each in found] == ["a", "b", "c"]
    assert [asked.query.get("continue") for asked in api.asked] == [None, "more"]
    assert {asked.query["labelSelector"] for asked in api.asked} == {"app=x,role=y"}


def test_a_scripted_410_between_pages_begins_the_list_anew(api: ApiServer, kube: Kube) -> None:
    expired = refusal(410, "the provided continue parameter is too old")
    api.script(f"GET {PODS}", page("a", after="more"), expired, page("a", "b", "c"))
    assert [each["metadata"]["name"] for each in kube.list("Pod")] == ["a", "b", "c"]
    assert "limit" not in api.asked[-1].query


def test_a_list_may_span_all_namespaces(api: ApiServer, kube: Kube) -> None:
    kube.list("Pod", everywhere=True)
    assert api.requests() == ["GET /api/v1/pods"]


@pytest.mark.parametrize("body", [b"<html>Log in to the hotel's network</html>", b"[]"])
def test_a_scripted_answer_of_something_else_than_an_api_server(
    api: ApiServer, kube: Kube, body: bytes
) -> None:
    api.script("GET /version", Answer(200, body))
    with pytest.raises(ClusterError, match="is not a Kubernetes API server"):
        kube.version()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_down_or_speaks_no_tls_is_one_sentence(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    there = api.address if scheme == "https" else "http://127.0.0.1:9"
    path = write_kubeconfig(tmp_path / "other", there.replace("http:", f"{scheme}:"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ClusterError, match=r"\(context tests\) does not answer") as caught:
        open_kube(patience_s=0.5).version()
    assert "\n" not in str(caught.value)


def test_a_right_is_asked_for_as_the_review_wants_it(api: ApiServer, kube: Kube) -> None:
    assert kube.may("get", "", "pods/log")
    assert kube.may("get", "", "secrets", "cifarray-store")
    bodies = [asked.body["spec"]["resourceAttributes"] for asked in api.asked]
    assert bodies[0] == {
        "verb": "get",
        "group": "",
        "resource": "pods",
        "subresource": "log",
        "namespace": "cifarray",
    }
    assert bodies[1]["name"] == "cifarray-store"
    review = as_json(
        client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(),
            status=client.V1SubjectAccessReviewStatus(allowed=False),
        )
    )
    api.script(
        f"POST {KINDS['SelfSubjectAccessReview'].prefix}/selfsubjectaccessreviews",
        Answer(201, review),
    )
    assert not kube.may("create", "ray.io", "rayjobs")


def test_a_kind_that_is_not_known_is_refused(kube: Kube) -> None:
    with pytest.raises(ClusterError, match="kind Gizmo"):
        kube.list("Gizmo")
