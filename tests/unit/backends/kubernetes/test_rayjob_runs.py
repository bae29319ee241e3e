"""The log of a run with a cluster of its own, and what an absent RayJob proves."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit

import pytest

from cifarray.backends.kubernetes.access import head_labels
from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.jobs import RayJobRuns
from cifarray.errors import ClusterError
from cifarray.spec.profile import KubernetesSpec
from tests.loopback import answering
from tests.unit.backends.kubernetes.api_server import ApiServer, Asked
from tests.unit.backends.kubernetes.kube_requests import JOB_ID, PODS, RAYJOBS, put_rayjob

CLUSTER, SUBMISSION = "the-runs-own", "a-submission"
Says = Callable[[str], dict[str, str] | None]
"""What the head says to a request; None: that the caller may not ask."""


def put_head(api: ApiServer, uid: str) -> None:
    ready = [{"type": "Ready", "status": "True"}]
    metadata = {"labels": head_labels(CLUSTER), "uid": uid}
    api.put(f"{PODS}/{CLUSTER}-head", metadata=metadata, status={"conditions": ready})
    put_rayjob(api, rayClusterName=CLUSTER, jobId=SUBMISSION)


@contextmanager
def runs_with(kube: Kube, says: Says) -> Iterator[RayJobRuns]:
    """RayJobs whose heads' dashboard is a server of this machine."""

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        if request.endswith("/tail"):
            return 404, {}, b""  # no websocket: the log comes when the job has ended
        said = says(request)
        return (403, {}, b"") if said is None else (200, {}, json.dumps(said).encode())

    with answering(answer) as address:
        port = urlsplit(address).port or 0
        yield RayJobRuns(kube, KubernetesSpec(), forward=lambda *_: nullcontext(port), pause_s=0.05)


def ended_job(request: str) -> dict[str, str]:
    if request.endswith("/logs"):
        return {"logs": "one\ntwo\n"}
    return {"submission_id": SUBMISSION, "status": "SUCCEEDED"}


def test_the_log_ends_with_the_drivers_job_before_the_operator_notices(
    api: ApiServer, kube: Kube
) -> None:
    put_head(api, "first")
    with runs_with(kube, ended_job) as runs:
        assert list(runs.tail(JOB_ID)) == ["one\ntwo\n"]


def answers_once_in_vain() -> Says:
    """The third question, whether the job has ended, stays without an answer."""
    asked: list[str] = []

    def says(request: str) -> dict[str, str] | None:
        asked.append(request)
        return None if len(asked) == 3 else ended_job(request)

    return says


def test_what_a_head_has_said_is_not_shown_again_when_it_is_asked_anew(
    api: ApiServer, kube: Kube
) -> None:
    put_head(api, "first")
    with runs_with(kube, answers_once_in_vain()) as runs:
        assert list(runs.tail(JOB_ID)) == ["one\ntwo\n"]


def test_a_new_head_of_the_same_name_begins_the_log_anew(api: ApiServer, kube: Kube) -> None:
    put_head(api, "first")
    with runs_with(kube, answers_once_in_vain()) as runs:
        shown = []
        for text in runs.tail(JOB_ID):
            shown.append(text)
            put_head(api, "second")
    assert shown == ["one\ntwo\n", "one\ntwo\n"]


def test_a_log_pauses_between_looks_for_a_head(api: ApiServer, kube: Kube) -> None:
    put_rayjob(api)

    def end_at_last(asked: Asked) -> None:
        if api.requests("GET").count(f"GET {RAYJOBS}/{JOB_ID}") == 6:
            put_rayjob(api, stage="Complete")

    api.on_request = end_at_last
    start = time.monotonic()
    assert list(RayJobRuns(kube, KubernetesSpec(), pause_s=0.2).tail(JOB_ID)) == []
    assert time.monotonic() - start >= 0.4


def test_a_rayjob_that_has_not_ended_is_ended_once(api: ApiServer, kube: Kube) -> None:
    runs = RayJobRuns(kube, KubernetesSpec())
    assert not runs.stop_if_live(JOB_ID)
    put_rayjob(api, stage="Failed")
    assert not runs.stop_if_live(JOB_ID)
    put_rayjob(api, stage="Retrying", finalizers=("ray.io/rayjob-finalizer",))
    assert runs.stop_if_live(JOB_ID)
    assert not runs.stop_if_live(JOB_ID)
    assert api.requests("DELETE") == [f"DELETE {RAYJOBS}/{JOB_ID}"]


def test_an_absent_rayjob_proves_nothing_where_the_cluster_may_be_another(kube: Kube) -> None:
    assert RayJobRuns(kube, KubernetesSpec()).find(JOB_ID) is None
    unsure = RayJobRuns(kube, KubernetesSpec(), sure=False)
    for ask in (unsure.find, unsure.stop):
        with pytest.raises(ClusterError, match=r"of tests has no RayJob .* --cluster PROFILE"):
            ask(JOB_ID)
