"""An answer that does not say what was done: every kind that cifarray makes, changes or deletes."""

from typing import Any

import pytest

from cifarray.backends.kubernetes.client import MARK, AlreadyExistsError, Kube, RefusedError
from cifarray.errors import ClusterError
from tests.unit.backends.kubernetes.api_server import Answer, ApiServer, open_kube, refusal

UNCLEAR = {
    "500": refusal(500, "etcdserver: request timed out"),
    "502": Answer(502, b"<html>Bad Gateway</html>"),
    "503": refusal(503, "apiserver is shutting down"),
    "504": refusal(504, "the server was unable to return a response in time"),
    "cut": Answer(cut=True),
}
MADE = (
    "ConfigMap",
    "NetworkPolicy",
    "PodGroup",
    "RayCluster",
    "RayJob",
    "Secret",
)


def carried_out(answer: Answer) -> Answer:
    """The same answer to a request that did arrive."""
    return Answer(answer.status, answer.body, answer.headers, answer.cut, done=True)


def manifest(kind: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "one", "labels": {"cifarray/run": "a-run"}}}


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("kind", MADE)
def test_what_was_made_though_the_answer_says_otherwise_is_taken_for_made(
    api: ApiServer, kube: Kube, kind: str, answer: Answer
) -> None:
    api.script(f"POST {kube.path(kind)}", carried_out(answer))
    made = kube.create(manifest(kind))
    assert made == api.objects[kube.path(kind, "one")]
    assert api.requests("POST") == [f"POST {kube.path(kind)}"]


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("kind", MADE)
def test_what_was_not_made_is_sent_again(
    api: ApiServer, kube: Kube, kind: str, answer: Answer
) -> None:
    api.script(f"POST {kube.path(kind)}", answer)
    made = kube.create(manifest(kind))
    assert made["metadata"]["labels"] == {"cifarray/run": "a-run"}
    assert api.requests("POST") == [f"POST {kube.path(kind)}"] * 2


def test_what_appears_only_after_the_look_is_ours_although_the_next_post_is_refused(
    api: ApiServer, kube: Kube
) -> None:
    path = kube.path("RayJob")
    absent = refusal(404, "not yet in the cache")
    api.script(f"GET {path}/one", absent)
    api.script(f"POST {path}", carried_out(UNCLEAR["503"]))
    assert kube.create(manifest("RayJob"))["metadata"]["uid"] == "uid-1"
    assert api.requests() == [f"POST {path}", f"GET {path}/one", f"POST {path}", f"GET {path}/one"]


@pytest.mark.parametrize("first", [None, UNCLEAR["503"], UNCLEAR["cut"]])
def test_what_another_request_made_is_refused_and_left_alone(
    api: ApiServer, kube: Kube, first: Answer | None
) -> None:
    before = kube.create(manifest("RayJob"))
    if first is not None:
        api.script(f"POST {kube.path('RayJob')}", first)
    with pytest.raises(AlreadyExistsError, match=r"RayJob one .* already exists, and this command"):
        kube.create(manifest("RayJob"))
    assert api.objects[kube.path("RayJob", "one")] == before


def test_each_request_has_a_mark_of_its_own_and_keeps_other_annotations(kube: Kube) -> None:
    noted = {"kind": "Secret", "metadata": {"name": "a", "annotations": {"why": "x"}}}
    marks = [
        kube.create({**noted, "metadata": {**noted["metadata"], "name": name}})["metadata"]
        for name in ("a", "b")
    ]
    assert [each["annotations"]["why"] for each in marks] == ["x", "x"]
    assert marks[0]["annotations"][MARK] != marks[1]["annotations"][MARK]


def test_an_answer_that_stays_unclear_ends_with_it_after_the_patience(api: ApiServer) -> None:
    kube = open_kube(patience_s=0.5)
    api.script(f"POST {kube.path('RayJob')}", *[UNCLEAR["503"]] * 50)
    with pytest.raises(RefusedError, match=r"503.*is shutting down"):
        kube.create(manifest("RayJob"))
    api.script(f"POST {kube.path('Secret')}", *[UNCLEAR["cut"]] * 50)
    with pytest.raises(ClusterError, match="does not answer"):
        kube.create(manifest("Secret"))
    assert api.objects == {}


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
@pytest.mark.parametrize("kind", MADE)
def test_what_was_deleted_though_the_answer_says_otherwise_counts_as_deleted(
    api: ApiServer, kube: Kube, kind: str, answer: Answer
) -> None:
    kube.create(manifest(kind))
    api.script(f"DELETE {kube.path(kind, 'one')}", carried_out(answer))
    assert kube.delete(kind, "one")
    assert not kube.delete(kind, "one")


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
def test_a_change_is_sent_again_and_what_it_ended_is_gone(
    api: ApiServer, kube: Kube, answer: Answer
) -> None:
    held = {"finalizers": ["ray.io/rayjob-finalizer"], "deletionTimestamp": "2026-11-23T04:00:00Z"}
    api.put(kube.path("RayJob", "one"), metadata=held)
    api.script(f"PATCH {kube.path('RayJob', 'one')}", carried_out(answer))
    assert kube.patch("RayJob", "one", {"metadata": {"finalizers": None}}) is None
    assert api.objects == {}


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
def test_an_apply_is_sent_again(api: ApiServer, kube: Kube, answer: Answer) -> None:
    api.script(f"PATCH {kube.path('ConfigMap', 'one')}", carried_out(answer))
    assert kube.apply(manifest("ConfigMap"))["metadata"]["labels"] == {"cifarray/run": "a-run"}


def test_a_review_keeps_nothing_and_is_sent_again(api: ApiServer, kube: Kube) -> None:
    api.script(f"POST {kube.path('SelfSubjectAccessReview')}", UNCLEAR["503"])
    assert kube.may("get", "", "pods")
