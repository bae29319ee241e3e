"""A run becomes a RayJob with its policy, or leaves neither, whatever the API server answers."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cifarray.backends.kubernetes.client import AlreadyExistsError, Kube, RefusedError
from cifarray.backends.kubernetes.rayjob import (
    end_earlier,
    launch_rayjob,
    remove_ended,
    request_of,
    run_policy,
)
from cifarray.backends.submit import launch
from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.store import Store
from tests.unit.backends.kubernetes.api_server import (
    Answer,
    ApiServer,
    Asked,
    open_kube,
    refusal,
)
from tests.unit.backends.kubernetes.kube_requests import (
    JOB_ID,
    POLICIES,
    RAYJOBS,
    RUN_ID,
    cluster_of,
    profile,
    put_policy,
    put_rayjob,
    recorded_run,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded_run(Store.open(str(tmp_path / "store")))


UNCLEAR = [
    Answer(cut=True),
    refusal(500, "etcdserver: request timed out"),
    refusal(503, "apiserver is shutting down"),
    refusal(504, "no response in time"),
]
GROUPS = "/apis/scheduling.x-k8s.io/v1alpha1/namespaces/cifarray/podgroups"


def carried_out(answer: Answer) -> Answer:
    """The same answer to a request that did arrive."""
    return replace(answer, done=True)


def owner_of(api: ApiServer, path: str) -> tuple[str, str]:
    """Name and uid of the only owner of an object."""
    (owner,) = api.objects[path]["metadata"]["ownerReferences"]
    return owner["name"], owner["uid"]


def test_a_run_becomes_a_rayjob_that_owns_its_policy(api: ApiServer, kube: Kube, run: Run) -> None:
    assert launch(run, cluster_of(kube)) == JOB_ID
    made = api.objects[f"{RAYJOBS}/{JOB_ID}"]
    assert owner_of(api, f"{POLICIES}/{JOB_ID}") == (JOB_ID, made["metadata"]["uid"])
    assert (run.status().cluster or {})["job_id"] == JOB_ID


def test_an_earlier_rayjob_that_is_tried_again_ends_before_the_run_is_open_again(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api, stage="Retrying")
    run.mark_failed("its driver said so")
    seen: list[str] = []

    def note(asked: Asked) -> None:
        if asked.method in ("DELETE", "POST"):
            seen.append(f"{asked.method} {asked.path.rpartition('/')[2]}: {run.status().state}")

    api.on_request = note
    assert launch(run, cluster_of(kube)) == f"{RUN_ID}-2"
    assert seen[0] == f"DELETE {JOB_ID}: failed"
    assert seen[1:] == ["POST networkpolicies: pending", "POST rayjobs: pending"]
    assert f"{RAYJOBS}/{JOB_ID}" not in api.objects


def test_an_earlier_rayjob_that_has_ended_stays(api: ApiServer, kube: Kube, run: Run) -> None:
    put_rayjob(api, stage="Failed")
    assert launch(run, cluster_of(kube)) == f"{RUN_ID}-2"
    assert not api.requests("DELETE")


def test_an_earlier_rayjob_need_not_be_gone_once_its_end_is_asked_for(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api, finalizers=("ray.io/rayjob-finalizer",))
    end_earlier(run, kube, patience_s=0.0)
    assert api.objects[f"{RAYJOBS}/{JOB_ID}"]["metadata"]["deletionTimestamp"]


def test_an_earlier_rayjob_that_does_not_go_is_an_error(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api)
    api.script(f"DELETE {RAYJOBS}/{JOB_ID}", Answer(200, {}))
    with pytest.raises(ClusterError, match=f"RayJob {JOB_ID} .* but still exists"):
        end_earlier(run, kube, patience_s=0.0)


@pytest.mark.parametrize("answer", UNCLEAR)
@pytest.mark.parametrize("path", [RAYJOBS, POLICIES, GROUPS])
def test_an_unclear_answer_to_what_was_made_is_no_failure(
    api: ApiServer, kube: Kube, run: Run, path: str, answer: Answer
) -> None:
    api.script(f"POST {path}", carried_out(answer))
    launch_rayjob(run, profile(gang="scheduler-plugins"), kube, 1)
    job = (JOB_ID, api.objects[f"{RAYJOBS}/{JOB_ID}"]["metadata"]["uid"])
    assert {owner_of(api, f"{kind}/{JOB_ID}") for kind in (POLICIES, GROUPS)} == {job}
    assert api.requests("POST") == [f"POST {POLICIES}", f"POST {GROUPS}", f"POST {RAYJOBS}"]


def test_no_rayjob_is_ever_there_without_its_policy(api: ApiServer, kube: Kube, run: Run) -> None:
    alone: list[str] = []

    def look(asked: Asked) -> None:
        if f"{RAYJOBS}/{JOB_ID}" in api.objects and f"{POLICIES}/{JOB_ID}" not in api.objects:
            alone.append(f"{asked.method} {asked.path}")

    api.on_request = look
    launch_rayjob(run, run.spec().profile, kube, 1)
    assert f"{RAYJOBS}/{JOB_ID}" in api.objects
    assert alone == []


def test_an_answer_that_stays_unclear_leaves_the_policy_to_a_rayjob_that_may_yet_appear(
    api: ApiServer, run: Run
) -> None:
    kube = open_kube(patience_s=0.3)
    api.script(f"POST {RAYJOBS}", *UNCLEAR[2:3] * 50)
    with pytest.raises(RefusedError, match="503"):
        launch_rayjob(run, run.spec().profile, kube, 1)
    assert set(api.objects) == {f"{POLICIES}/{JOB_ID}"}
    api.objects[f"{POLICIES}/{JOB_ID}"]["metadata"]["creationTimestamp"] = "2025-11-23T04:00:00Z"
    assert remove_ended(kube, keep_s=0) == [JOB_ID]


@pytest.mark.parametrize("path", [POLICIES, RAYJOBS])
def test_a_scripted_refusal_leaves_nothing(api: ApiServer, kube: Kube, run: Run, path: str) -> None:
    api.script(f"POST {path}", refusal(403, "not for you"))
    with pytest.raises(RefusedError, match="not for you"):
        launch_rayjob(run, run.spec().profile, kube, 1)
    assert api.objects == {}


def test_a_cluster_without_kuberay_is_one_sentence_and_keeps_nothing(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    api.script(f"POST {RAYJOBS}", refusal(404, "404 page not found"))
    with pytest.raises(ClusterError, match=r"has no RayJob CRD; install KubeRay's operator 1\.7"):
        launch_rayjob(run, run.spec().profile, kube, 1)
    assert api.objects == {}


def test_who_may_not_hand_the_policy_over_leaves_it_for_later(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    api.forbid(f"PATCH {POLICIES}/{JOB_ID}")
    launch_rayjob(run, run.spec().profile, kube, 1)
    assert set(api.objects) == {f"{RAYJOBS}/{JOB_ID}", f"{POLICIES}/{JOB_ID}"}


def test_a_policy_that_vanishes_with_an_older_rayjob_of_its_name_is_made_again(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    api.on_request = lambda asked: (
        api.objects.pop(f"{POLICIES}/{JOB_ID}", None) if asked.method == "PATCH" else None
    )
    launch_rayjob(run, run.spec().profile, kube, 1)
    assert owner_of(api, f"{POLICIES}/{JOB_ID}")[0] == JOB_ID


def test_a_policy_that_is_left_of_an_applied_run_serves_the_next_rayjob(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_policy(api, spec=run_policy(request_of(run, run.spec().profile), 1)["spec"])
    launch_rayjob(run, run.spec().profile, kube, 1)
    assert owner_of(api, f"{POLICIES}/{JOB_ID}")[0] == JOB_ID


def test_a_policy_of_that_name_that_says_something_else_is_refused(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_policy(api, spec={"podSelector": {}})
    with pytest.raises(AlreadyExistsError, match=r"NetworkPolicy .* already exists"):
        launch_rayjob(run, run.spec().profile, kube, 1)
    assert set(api.objects) == {f"{POLICIES}/{JOB_ID}"}


@pytest.mark.parametrize("first", [None, *UNCLEAR])
def test_another_submission_of_the_same_name_is_refused_and_left_alone(
    api: ApiServer, kube: Kube, run: Run, first: Answer | None
) -> None:
    before = put_rayjob(api)
    if first is not None:
        api.script(f"POST {RAYJOBS}", first)
    with pytest.raises(AlreadyExistsError, match=r"RayJob .* already exists, and this command"):
        launch_rayjob(run, run.spec().profile, kube, 1)
    assert api.objects[f"{RAYJOBS}/{JOB_ID}"] == before
    assert f"{POLICIES}/{JOB_ID}" in api.objects  # which the other one's pods need


def test_what_cannot_be_cleared_away_does_not_fail_a_submission(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api, "old-1", "Complete", endTime="2025-11-23T04:00:00Z")
    api.forbid(f"DELETE {RAYJOBS}/old-1")
    assert launch(run, cluster_of(kube)) == JOB_ID


def test_long_ended_rayjobs_go_and_policies_that_nobody_owns_with_them(
    api: ApiServer, kube: Kube
) -> None:
    put_rayjob(api, "old-1", "Complete", endTime="2025-11-23T04:00:00Z")
    put_rayjob(api, "live-1")
    for name in ("old-1", "live-1", "vanished-1"):
        put_policy(api, name)
    put_policy(api, "owned-1", ownerReferences=[{"kind": "RayJob", "name": "owned-1"}])
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    put_policy(api, "just-applied-1", creationTimestamp=now)
    api.put(f"{POLICIES}/deny-all", metadata={"labels": {"app.kubernetes.io/part-of": "cifarray"}})
    assert remove_ended(kube, keep_s=0) == ["old-1", "old-1", "vanished-1"]
    left = {path.rpartition("/")[2] for path in api.objects if path.startswith(POLICIES)}
    assert left == {"live-1", "owned-1", "just-applied-1", "deny-all"}


def test_who_may_not_list_policies_leaves_them(api: ApiServer, kube: Kube) -> None:
    put_policy(api)
    api.forbid(f"GET {POLICIES}")
    assert remove_ended(kube, keep_s=0) == []
