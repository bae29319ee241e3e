"""A run becomes a RayJob with its policy, or leaves neither, whatever the API server answers."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.store import Store
from cifarray.submit.kubernetes.api import Kube, RefusedError
from cifarray.submit.kubernetes.launching import end_earlier, launch_rayjob, remove_ended
from cifarray.submit.launch import launch
from tests.unit.submit.kubernetes.api_server import Answer, ApiServer, Asked, refusal
from tests.unit.submit.kubernetes.kube_requests import (
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

LOST = Answer(cut=True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded_run(Store.open(str(tmp_path / "store")))


def make_but_lose_the_answer(api: ApiServer, path: str) -> None:
    """Keep what is posted there, and cut the connection instead of saying so."""

    def keep(asked: Asked) -> None:
        if (asked.method, asked.path) == ("POST", path):
            api.put(f"{path}/{asked.body['metadata']['name']}", **asked.body)

    api.on_request = keep
    api.script(f"POST {path}", LOST)


def test_a_run_becomes_a_rayjob_that_owns_its_policy(api: ApiServer, kube: Kube, run: Run) -> None:
    assert launch(run, profile(), cluster_of(kube)) == JOB_ID
    made = api.objects[f"{RAYJOBS}/{JOB_ID}"]
    (owner,) = api.objects[f"{POLICIES}/{JOB_ID}"]["metadata"]["ownerReferences"]
    assert (owner["name"], owner["uid"]) == (JOB_ID, made["metadata"]["uid"])
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
    assert launch(run, profile(), cluster_of(kube)) == f"{RUN_ID}-2"
    assert seen[:2] == [f"DELETE {JOB_ID}: failed", "POST rayjobs: pending"]
    assert f"{RAYJOBS}/{JOB_ID}" not in api.objects


def test_an_earlier_rayjob_that_has_ended_stays(api: ApiServer, kube: Kube, run: Run) -> None:
    put_rayjob(api, stage="Failed")
    assert launch(run, profile(), cluster_of(kube)) == f"{RUN_ID}-2"
    assert not api.requests("DELETE")


def test_an_earlier_rayjob_need_not_be_gone_once_its_end_is_asked_for(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api, finalizers=("ray.io/rayjob-finalizer",))
    end_earlier(run, cluster_of(kube), patience_s=0.0)
    assert api.objects[f"{RAYJOBS}/{JOB_ID}"]["metadata"]["deletionTimestamp"]


def test_an_earlier_rayjob_that_does_not_go_is_an_error(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api)
    api.script(f"DELETE {RAYJOBS}/{JOB_ID}", Answer(200, {}))
    with pytest.raises(ClusterError, match=f"RayJob {JOB_ID} .* is still there"):
        end_earlier(run, cluster_of(kube), patience_s=0.0)


def test_a_scripted_lost_answer_to_a_rayjob_that_was_made_is_no_failure(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    make_but_lose_the_answer(api, RAYJOBS)
    launch_rayjob(run, run.spec().profile, cluster_of(kube), 1)
    (owner,) = api.objects[f"{POLICIES}/{JOB_ID}"]["metadata"]["ownerReferences"]
    assert owner["uid"] == api.objects[f"{RAYJOBS}/{JOB_ID}"]["metadata"]["uid"]
    assert api.requests("POST") == [f"POST {RAYJOBS}", f"POST {POLICIES}"]


def test_a_scripted_lost_answer_without_a_rayjob_is_one(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    api.script(f"POST {RAYJOBS}", LOST)
    with pytest.raises(ClusterError, match="does not answer"):
        launch_rayjob(run, run.spec().profile, cluster_of(kube), 1)
    assert api.objects == {}


def test_a_scripted_refusal_of_the_policy_takes_the_rayjob_away(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    api.script(f"POST {POLICIES}", refusal(403, "no policies for you"))
    with pytest.raises(RefusedError, match="no policies for you"):
        launch_rayjob(run, run.spec().profile, cluster_of(kube), 1)
    assert api.objects == {}


def test_a_policy_that_is_left_of_an_applied_run_serves_the_next_rayjob(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_policy(api)
    launch_rayjob(run, run.spec().profile, cluster_of(kube), 1)
    assert set(api.objects) == {f"{RAYJOBS}/{JOB_ID}", f"{POLICIES}/{JOB_ID}"}


def test_another_submission_of_the_same_name_is_refused_and_left_alone(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api)
    with pytest.raises(RefusedError, match="already exists"):
        launch_rayjob(run, run.spec().profile, cluster_of(kube), 1)
    assert f"{RAYJOBS}/{JOB_ID}" in api.objects


def test_what_cannot_be_cleared_away_does_not_fail_a_submission(
    api: ApiServer, kube: Kube, run: Run
) -> None:
    put_rayjob(api, "old-1", "Complete", endTime="2025-11-23T04:00:00Z")
    api.forbid(f"DELETE {RAYJOBS}/old-1")
    assert launch(run, profile(), cluster_of(kube)) == JOB_ID


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
