"""What the client of the Jobs API does when the server is away, refuses, or loses an answer."""

import json
import time
from collections import Counter

import pytest

from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from tests.loopback import answering, black_hole

Answer = tuple[int, dict[str, str], bytes]


def as_json(value: object, code: int = 200) -> Answer:
    return code, {}, json.dumps(value).encode()


def job(status: str, **fields: object) -> Answer:
    return as_json({"submission_id": "a-1", "type": "SUBMISSION", "status": status, **fields})


def test_nobody_listening_is_one_sentence_within_the_patience() -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"http://127\.0\.0\.1:9 does not answer \(.*refused"):
        RayJobs("http://127.0.0.1:9", patience_s=1.0).find("a-1")
    assert time.monotonic() - began < 3.0


def test_a_server_that_never_answers_is_given_up_within_the_patience() -> None:
    began = time.monotonic()
    with black_hole() as address, pytest.raises(ClusterError, match="does not answer"):
        RayJobs(address, patience_s=1.0).version()
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize(("code", "words"), [(401, "requires a token"), (403, "refuses the token")])
def test_a_refused_token_is_not_tried_again(code: int, words: str) -> None:
    asked: Counter[str] = Counter()

    def refuse(request: str) -> Answer:
        asked[request] += 1
        return code, {}, b"no"

    with answering(refuse) as address, pytest.raises(ClusterError, match=words) as caught:
        RayJobs(address, "secret-token").find("a-1")
    assert "RAY_AUTH_TOKEN" in str(caught.value)
    assert "secret-token" not in str(caught.value)
    assert asked.total() == 1


def test_a_server_error_is_tried_again() -> None:
    answers = [as_json("busy", 503), as_json("busy", 500), job("RUNNING")]
    with answering(lambda request: answers.pop(0)) as address:
        found = RayJobs(address).find("a-1")
    assert found is not None and found.status == "RUNNING" and not found.ended


def test_a_server_error_that_stays_gives_the_last_line_of_its_reason() -> None:
    trace = b"Traceback (most recent call last):\n  File x\nRuntimeError: no agent.\n.\n"
    refusal = pytest.raises(ClusterError, match=r"HTTP 500: RuntimeError: no agent\.")
    with answering(lambda request: (500, {}, trace)) as address, refusal:
        RayJobs(address, patience_s=0.5).find("a-1")


def test_an_unknown_job_is_none_and_cannot_be_stopped() -> None:
    with answering(lambda request: (404, {}, b"Job a-1 does not exist")) as address:
        jobs = RayJobs(address)
        assert jobs.find("a-1") is None
        assert jobs.stop("a-1") is False
        assert jobs.logs("a-1") == ""


def test_a_submission_whose_answer_was_lost_is_not_made_twice() -> None:
    submitted: list[str] = []

    def answer(request: str) -> Answer:
        if request.startswith("POST"):
            submitted.append(request)
            return as_json("the answer got lost", 502)
        return job("PENDING") if submitted else (404, {}, b"")

    with answering(answer) as address:
        RayJobs(address).submit("exec true", "a-1", {}, {})
    assert submitted == ["POST /api/jobs/"]


def test_an_id_is_submitted_once() -> None:
    refusal = pytest.raises(ClusterError, match="has a job a-1 already")
    with answering(lambda request: job("SUCCEEDED")) as address, refusal:
        RayJobs(address).submit("exec true", "a-1", {}, {})


def test_a_redirect_does_not_carry_the_token_elsewhere() -> None:
    reached: list[str] = []

    def elsewhere(request: str) -> Answer:
        reached.append(request)
        return as_json({})

    with (
        answering(elsewhere) as other,
        answering(lambda request: (302, {"Location": other}, b"")) as address,
        pytest.raises(ClusterError, match="HTTP 302"),
    ):
        RayJobs(address, "secret-token").version()
    assert reached == []


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(lambda request: as_json({"ray_version": "1"})) as address:
        assert RayJobs(address).version() == {"ray_version": "1"}


def test_live_jobs_leave_out_ended_ones_and_programs_that_were_not_submitted() -> None:
    listed = [
        {"submission_id": "a", "status": "RUNNING"},
        {"submission_id": "b", "status": "FAILED"},
        {"submission_id": None, "job_id": "02000000", "status": "RUNNING"},
        {"submission_id": None, "job_id": "03000000", "status": "SUCCEEDED"},
    ]
    with answering(lambda request: as_json(listed)) as address:
        jobs = RayJobs(address)
        assert [each.id for each in jobs.live_jobs()] == ["a"]
        assert jobs.live_drivers() == ["02000000"]


def test_an_answer_that_is_no_json_is_one_sentence() -> None:
    refusal = pytest.raises(ClusterError, match="does not answer")
    with answering(lambda request: (200, {}, b"<html>")) as address, refusal:
        RayJobs(address, patience_s=0.3).find("a-1")


def test_the_token_is_not_shown() -> None:
    assert "secret-token" not in repr(RayJobs("http://127.0.0.1:9", "secret-token"))
