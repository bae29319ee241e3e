"""A RayJob's stages in the words of the Jobs API, and which are old enough to remove."""

from typing import Any

import pytest

from cifarray.backends.kubernetes.rayjob import as_job, ended_before


def found(stage: str, job: str = "", **status: Any) -> dict[str, Any]:
    status = {"jobDeploymentStatus": stage, "jobStatus": job, **status}
    return {"metadata": {"name": "a-run-1", "labels": {}}, "status": status}


@pytest.mark.parametrize(
    ("stage", "job", "state"),
    [
        ("", "", "PENDING"),
        ("Initializing", "", "PENDING"),
        ("Waiting", "", "PENDING"),
        ("Suspended", "", "PENDING"),
        ("Retrying", "FAILED", "PENDING"),
        ("Running", "RUNNING", "RUNNING"),
        ("Suspending", "RUNNING", "RUNNING"),
        ("Complete", "SUCCEEDED", "SUCCEEDED"),
        ("Failed", "FAILED", "FAILED"),
        ("Failed", "STOPPED", "STOPPED"),
        ("Failed", "SUCCEEDED", "FAILED"),
        ("Failed", "", "FAILED"),
        ("ValidationFailed", "", "FAILED"),
    ],
)
def test_every_stage_of_a_rayjob_has_a_state(stage: str, job: str, state: str):
    assert as_job(found(stage, job)).status == state


def test_a_rayjob_that_nobody_has_taken_up_is_pending():
    assert as_job({"metadata": {"name": "a"}}).status == "PENDING"


def test_the_reason_of_a_failure_is_told_with_its_message():
    failed = found("Failed", reason="DeadlineExceeded", message="longer than 60 s")
    assert as_job(failed).message == "DeadlineExceeded: longer than 60 s"


def test_of_a_failed_jobs_log_its_last_line_is_told():
    log = "Job entrypoint failed with exit code 1, last available logs (truncated to 20 chars):\n"
    failed = found(
        "Failed", "FAILED", reason="AppFailed", message=f"{log}  at x\nerror: no room\n\n"
    )
    assert (
        as_job(failed).message
        == "AppFailed: Job entrypoint failed with exit code 1: error: no room"
    )


def test_only_a_rayjob_that_ended_long_ago_is_old():
    ended = found("Complete", "SUCCEEDED", endTime="2026-11-20T10:00:00Z")
    assert ended_before(ended, "2026-11-21T00:00:00Z")
    assert not ended_before(ended, "2026-11-20T00:00:00Z")
    assert not ended_before(found("Running", "RUNNING"), "2026-11-21T00:00:00Z")
