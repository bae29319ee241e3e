"""A status says what is known, even where it was damaged."""

from datetime import UTC, datetime, timedelta

import pytest

from cifarray.runs import Status, heartbeat_age_s
from cifarray.runs.status import now, parse_time, read_status
from cifarray.store import to_json


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_status_is_read_as_it_was_written() -> None:
    status = Status("running", "train-digits", "train", 2, now(), heartbeat_at=now(), best={"a": 1})
    assert read_status(to_json(status.to_dict())) == status


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert read_status(b'{"schema_version": 9, "state": "finished", "novelty": 1}') == Status(
        "finished"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{torn",
        b"[]",
        b"null",
        b"{}",
        b'{"state": "dancing"}',
        b'{"state": ["running"]}',
        b'{"state": "running", "attempts": "many"}',
        b'{"state": "running", "best": 3}',
        b'{"state": "running", "heartbeat_at": 12}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_status_shows_as_failed_and_says_why(data: bytes) -> None:
    status = read_status(data)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.startswith("status.json is damaged")


def test_the_age_of_a_heartbeat_is_known_of_running_runs_alone() -> None:
    assert heartbeat_age_s(Status("running", heartbeat_at=_ago(30))) == pytest.approx(30, abs=1)
    ahead_of_this_clock = Status("running", heartbeat_at=_ago(-300))
    for status in (
        ahead_of_this_clock,
        Status("running", heartbeat_at="yesterday"),
        Status("running"),
        Status("pending", heartbeat_at=_ago(30)),
        Status("finished", heartbeat_at=_ago(30)),
    ):
        assert heartbeat_age_s(status) is None


def test_duration_runs_from_submission_to_the_end_or_to_now() -> None:
    ended = Status("finished", submitted_at=_ago(100), ended_at=_ago(40))
    assert ended.seconds() == pytest.approx(60, abs=0.1)
    assert Status("running", submitted_at=_ago(100)).seconds() == pytest.approx(100, abs=1)
    assert Status("failed", submitted_at=_ago(100)).seconds() is None
    assert Status("running").seconds() is None


def test_a_time_without_zone_is_utc() -> None:
    assert parse_time("2026-11-23T10:00:00") == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert parse_time("soon") is None
