"""How a follower learns of a run's end, also where the driver could not record it."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.backends.base import Backend, SubmittedJob
from cifarray.backends.follow import Follower, stored_log
from cifarray.backends.observe import end_of, job_evidence
from cifarray.errors import LeaseLostError
from cifarray.runs import Run, Status
from cifarray.store import Store
from tests.loopback import answering
from tests.unit.backends.clusters import given_node, own_node
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"
JOB_ID = f"{RUN_ID}-1"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec(RUN_ID))


def follower_of(run: Run, cluster: Backend) -> Follower:
    return Follower(run, cluster, JOB_ID, patience_s=0.1, closing_s=0.1)


def at(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (SubmittedJob(JOB_ID, "FAILED", "", -9), "signal 9, which happens when memory runs out"),
        (SubmittedJob(JOB_ID, "FAILED", "", 137), "signal 9"),
        (SubmittedJob(JOB_ID, "FAILED", "", -11), "signal 11"),
        (SubmittedJob(JOB_ID, "FAILED", "", 2), "exit code 2"),
        (SubmittedJob(JOB_ID, "SUCCEEDED", "", 0), "exit code 0 without closing"),
        (SubmittedJob(JOB_ID, "FAILED", "no supervisor\nmore", None), "has ended (no supervisor)"),
        (SubmittedJob(JOB_ID, "STOPPED", "", None), "was stopped"),
    ],
)
def test_a_job_that_has_ended_is_evidence_of_death_and_says_how(
    job: SubmittedJob, words: str
) -> None:
    assert words in end_of(job)
    for state in ("pending", "running"):
        assert job_evidence(Status(state), JOB_ID, job, None).dead == end_of(job)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_live_job_is_evidence_of_life(state: str) -> None:
    evidence = job_evidence(Status("running"), JOB_ID, SubmittedJob(JOB_ID, state, "", None), None)
    assert evidence.alive and not evidence.dead


def test_a_job_that_is_not_known_is_an_end_only_of_a_run_that_has_begun_and_on_a_sure_cluster() -> (
    None
):
    ours = own_node("http://127.0.0.1:9")
    given = given_node("http://127.0.0.1:9")
    assert "has no job" in job_evidence(Status("running"), JOB_ID, None, ours).dead
    for status, cluster in ((Status("pending"), ours), (Status("running"), given)):
        evidence = job_evidence(status, JOB_ID, None, cluster)
        assert "has no job" in evidence.doubt and not evidence.dead


def test_a_run_that_has_ended_is_shown_once(run: Run) -> None:
    run.mark_stopped("enough")
    shown: list[tuple[str, str]] = []
    outcome = Follower(run, None, None).follow(lambda s, remark: shown.append((s.state, remark)))
    assert (outcome.state, outcome.cause) == ("stopped", "")
    assert shown == [("stopped", "")]


@pytest.fixture
def job_that_was_killed() -> Iterator[Backend]:
    """A cluster whose job was killed while the run's driver had no chance to say so."""
    body = b'{"submission_id": "%s", "status": "FAILED", "driver_exit_code": -9}'
    log = b'{"logs": "first line\\nlast line\\n"}'

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, log if request.endswith("/logs") else body % JOB_ID.encode()

    with answering(answer) as address:
        yield given_node(address)


def written(run: Run) -> dict[str, bytes]:
    return {entry.key: run.store.read(entry.key) for entry in run.store.list()}


def test_a_killed_driver_ends_the_follower_and_nothing_is_written(
    run: Run, job_that_was_killed: Backend
) -> None:
    run.set_cluster(job_that_was_killed.record(JOB_ID))
    attempt = run.start_attempt("a driver")
    follower, before = follower_of(run, job_that_was_killed), written(run)
    shown: list[str] = []
    outcome = follower.follow(lambda s, remark: shown.append(remark), poll_s=0.05)
    assert outcome.state == "lost"
    assert "signal 9" in outcome.cause and "signal 9" in shown[-1]
    assert follower.last_lines() == ["first line", "last line"]
    assert written(run) == before
    attempt.heartbeat()


def test_the_drivers_own_word_wins_over_the_end_of_its_job(
    run: Run, job_that_was_killed: Backend
) -> None:
    run.set_cluster(job_that_was_killed.record(JOB_ID))
    attempt = run.start_attempt("a driver")

    def sleep(seconds: float) -> None:
        attempt.close("failed", "its own word")  # a moment after its job was seen to have ended

    follower = Follower(run, job_that_was_killed, JOB_ID, patience_s=0.1, sleep=sleep)
    outcome = follower.follow(lambda s, remark: None)
    assert (outcome.state, outcome.status.error, outcome.cause) == ("failed", "its own word", "")


def test_a_queued_run_that_was_submitted_long_ago_is_waited_for(run: Run) -> None:
    away = given_node("http://127.0.0.1:9")
    run.set_cluster(away.record(JOB_ID))
    shown: list[str] = []

    def show(status: Status, remark: str) -> None:
        shown.append(status.state)
        if len(shown) == 3:
            run.mark_stopped("enough")

    follower_of(run, away).follow(show, poll_s=0.01)
    assert shown == ["pending", "pending", "pending", "stopped"]


def test_a_driver_of_which_nothing_is_heard_is_doubted_for_long_and_never_closed(run: Run) -> None:
    time, remarks = 0.0, list[str]()

    def sleep(seconds: float) -> None:
        nonlocal time
        time += seconds

    run.start_attempt("frozen, with all that could vouch for it")
    follower, before = Follower(run, None, None, clock=lambda: time, sleep=sleep), written(run)
    outcome = follower.follow(lambda s, remark: remarks.append(remark), poll_s=10.0)
    assert outcome.state == "lost" and "no heartbeat for 36" in outcome.cause
    assert time > 3600
    assert remarks[0] == "" and "no heartbeat for 70 s" in remarks
    assert written(run) == before


def test_a_follower_leaves_a_run_that_another_job_took_over(
    run: Run, job_that_was_killed: Backend
) -> None:
    run.set_cluster(job_that_was_killed.record(f"{RUN_ID}-2"))
    with pytest.raises(LeaseLostError, match=f"{RUN_ID}-2 has taken over"):
        follower_of(run, job_that_was_killed).follow(lambda s, remark: None)
    assert run.status().state == "pending"


def test_a_cluster_that_is_away_for_a_moment_is_a_remark(run: Run) -> None:
    away = given_node("http://127.0.0.1:9")
    run.set_cluster(away.record(JOB_ID))
    run.change_status(lambda s: dataclasses.replace(s, state="running", heartbeat_at=at(0)))
    remarks: list[str] = []

    def show(status: Status, remark: str) -> None:
        remarks.append(remark)
        if len(remarks) == 2:
            run.mark_stopped("enough")

    follower_of(run, away).follow(show, poll_s=0.01)
    assert "does not answer" in remarks[0]
    assert run.status().state == "stopped"


def test_a_node_of_ours_that_has_ended_ends_the_follower(run: Run) -> None:
    gone = own_node("http://127.0.0.1:9")
    run.set_cluster(gone.record(JOB_ID))
    run.change_status(lambda s: dataclasses.replace(s, state="running", heartbeat_at=at(0)))
    before = written(run)
    outcome = follower_of(run, gone).follow(lambda s, remark: None, poll_s=0.01)
    assert outcome.state == "lost"
    assert "node of this machine that it ran on has ended" in outcome.cause
    assert written(run) == before


def test_the_stored_log_is_that_of_the_newest_attempt_that_left_one(run: Run) -> None:
    assert stored_log(run) == ""
    run.store.write(run.key("attempts", "1", "driver.log"), b"first\n")
    run.store.write(run.key("attempts", "2", "driver.log"), b"second \xff\n")
    run.store.write(run.key("attempts", "3", "metrics.jsonl"), b"")
    assert stored_log(run) == "second �\n"
