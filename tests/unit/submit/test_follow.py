"""How a follower learns of a run's end, also where the driver could not record it."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.errors import LeaseLostError
from cifarray.runs import Run, Status
from cifarray.store import Store
from cifarray.submit.cluster import Cluster
from cifarray.submit.follow import Follower, close, end_of, lost, stored_log
from cifarray.submit.jobs_api import RayJob
from tests.loopback import answering
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"
JOB_ID = f"{RUN_ID}-1"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec(RUN_ID))


def follower_of(run: Run, cluster: Cluster) -> Follower:
    return Follower(run, cluster, JOB_ID, patience_s=0.1, closing_s=0.1)


def at(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()


@pytest.mark.parametrize(
    ("job", "state", "words"),
    [
        (None, "failed", "does not know its job"),
        (RayJob(JOB_ID, "FAILED", "", -9), "failed", "signal 9, as happens when memory runs out"),
        (RayJob(JOB_ID, "FAILED", "", 137), "failed", "signal 9"),
        (RayJob(JOB_ID, "FAILED", "", -11), "failed", "signal 11"),
        (RayJob(JOB_ID, "FAILED", "", 2), "failed", "exit code 2"),
        (RayJob(JOB_ID, "SUCCEEDED", "", 0), "failed", "exit code 0 without closing"),
        (RayJob(JOB_ID, "FAILED", "no supervisor\nmore", None), "failed", "failed: no supervisor"),
        (RayJob(JOB_ID, "STOPPED", "", None), "stopped", "was stopped"),
    ],
)
def test_a_jobs_end_says_how_the_run_ended(job: RayJob | None, state: str, words: str) -> None:
    end = end_of(job)
    assert end is not None
    assert end[0] == state and words in end[1]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_live_job_is_no_end(status: str) -> None:
    assert end_of(RayJob(JOB_ID, status, "", None)) is None


def test_a_silent_driver_is_lost_and_a_beating_one_is_not() -> None:
    assert lost(Status("running", heartbeat_at=at(5))) is None
    assert lost(Status("pending", submitted_at=at(5))) is None
    for silent in (
        Status("running", heartbeat_at=at(200)),
        Status("pending", submitted_at=at(200)),
    ):
        end = lost(silent)
        assert end is not None and end[0] == "failed" and "200 s" in end[1]


def test_closing_a_failed_run_names_the_way_on(run: Run) -> None:
    status = close(run, "failed", "its driver was killed by signal 9")
    assert status.state == "failed"
    assert status.error == (
        "its driver was killed by signal 9; "
        f"`cifarray resume {RUN_ID}` goes on from its last checkpoint"
    )
    assert close(run, "stopped", "its job was stopped").state == "stopped"


def test_a_run_that_has_ended_is_shown_once(run: Run) -> None:
    run.mark_stopped("enough")
    shown: list[tuple[str, str]] = []
    status = Follower(run, None, None).follow(lambda s, remark: shown.append((s.state, remark)))
    assert status.state == "stopped"
    assert shown == [("stopped", "")]


@pytest.fixture
def job_that_was_killed() -> Iterator[Cluster]:
    """A cluster whose job was killed while the run's driver had no chance to say so."""
    body = b'{"submission_id": "%s", "status": "FAILED", "driver_exit_code": -9}'
    log = b'{"logs": "first line\\nlast line\\n"}'

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, log if request.endswith("/logs") else body % JOB_ID.encode()

    with answering(answer) as address:
        yield Cluster("mine", "127.0.0.1:1", address, own=False)


def test_a_killed_driver_is_noticed_and_the_run_closed(
    run: Run, job_that_was_killed: Cluster
) -> None:
    run.set_cluster(job_that_was_killed.record(JOB_ID))
    attempt = run.start_attempt("a driver")
    follower = follower_of(run, job_that_was_killed)
    shown: list[str] = []
    status = follower.follow(lambda s, remark: shown.append(s.state), poll_s=0.05)
    assert status.state == "failed"
    assert "signal 9" in (status.error or "")
    assert shown[-1] == "failed"
    assert follower.last_lines() == ["first line", "last line"]
    with pytest.raises(LeaseLostError):
        attempt.heartbeat()


def test_a_follower_leaves_a_run_that_another_job_took_over(
    run: Run, job_that_was_killed: Cluster
) -> None:
    run.set_cluster(job_that_was_killed.record(f"{RUN_ID}-2"))
    with pytest.raises(LeaseLostError, match=f"{RUN_ID}-2 has taken over"):
        follower_of(run, job_that_was_killed).follow(lambda s, remark: None)
    assert run.status().state == "pending"


def test_a_cluster_that_is_away_for_a_moment_is_a_remark(run: Run) -> None:
    away = Cluster("mine", "127.0.0.1:1", "http://127.0.0.1:9", own=False)
    run.set_cluster(away.record(JOB_ID))
    run.change_status(lambda s: dataclasses.replace(s, state="running", heartbeat_at=at(0)))
    remarks: list[str] = []

    def show(status: Status, remark: str) -> None:
        remarks.append(remark)
        if len(remarks) == 2:
            run.mark_stopped("enough")

    follower_of(run, away).follow(show, poll_s=0.01)
    assert "does not answer" in remarks[0]


def test_a_node_of_ours_that_has_ended_ends_the_run(run: Run) -> None:
    gone = Cluster("local", "127.0.0.1:1", "http://127.0.0.1:9", own=True)
    run.set_cluster(gone.record(JOB_ID))
    run.change_status(lambda s: dataclasses.replace(s, state="running", heartbeat_at=at(0)))
    status = follower_of(run, gone).follow(lambda s, remark: None, poll_s=0.01)
    assert status.state == "failed"
    assert "node ended" in (status.error or "")


def test_the_stored_log_is_that_of_the_newest_attempt_that_left_one(run: Run) -> None:
    assert stored_log(run) == ""
    run.store.write(run.key("attempts", "1", "driver.log"), b"first\n")
    run.store.write(run.key("attempts", "2", "driver.log"), b"second \xff\n")
    run.store.write(run.key("attempts", "3", "metrics.jsonl"), b"")
    assert stored_log(run) == "second �\n"
