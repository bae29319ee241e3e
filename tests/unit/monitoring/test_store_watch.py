"""Rounds over a store: what they tell, what they leave alone, and a store that is away."""

import dataclasses
from datetime import datetime
from pathlib import Path

import pytest

from cifarray.errors import StoreError
from cifarray.metrics import STORE
from cifarray.monitoring.exporter import StoreWatch
from cifarray.runs import Run
from cifarray.store import Store
from tests.s3 import S3Server
from tests.unit.monitoring.conftest import AddRun, ago
from tests.unit.runs.conftest import run_spec

Key = tuple[str, ...]


def read(watch: StoreWatch) -> dict[Key, float]:
    """A round, and what it gives by name and values of labels."""
    assert watch.read() is None
    return values(watch)


def values(watch: StoreWatch) -> dict[Key, float]:
    """What the last round gave."""
    found = {(s.name, *(s.labels[k] for k in STORE[s.name].labels)): s.value for s in watch.samples}
    assert len(found) == len(watch.samples)
    return found


def test_before_the_first_round_nothing_is_claimed(here: Store):
    assert StoreWatch(here).samples == ()


def test_an_empty_store_is_up_and_holds_no_runs(here: Store):
    shown = read(StoreWatch(here))
    assert shown["cifarray_store_up",] == 1
    assert shown["cifarray_runs", "running"] == 0
    assert {key[1] for key in shown if key[0] == "cifarray_runs"} == {
        *("pending", "running", "lost", "finished", "failed", "stopped")
    }


def test_runs_are_counted_by_the_state_that_people_are_shown(
    here: Store, one_of_each: dict[str, Run], add_run: AddRun
):
    add_run("another-running", state="running", heartbeat_at=ago(1))
    shown = read(StoreWatch(here))
    assert shown["cifarray_runs", "running"] == 2
    for state in ("pending", "lost", "finished", "failed", "stopped"):
        assert shown["cifarray_runs", state] == 1


def test_each_run_shows_what_its_status_says(here: Store, one_of_each: dict[str, Run]):
    shown = read(StoreWatch(here))
    job = "train-digits"
    assert shown["cifarray_run_best", "a-running", job, "validation.top1"] == 0.97
    assert 5 <= shown["cifarray_run_heartbeat_age_seconds", "a-running", job] < 60
    assert 500 <= shown["cifarray_run_heartbeat_age_seconds", "a-lost", job] < 560
    assert ("cifarray_run_heartbeat_age_seconds", "a-finished", job) not in shown
    assert shown["cifarray_run_epochs", "a-running", job, "train"] == 3
    assert shown["cifarray_run_loss_is_nan", "a-failed", job] == 1
    assert shown["cifarray_run_loss_is_nan", "a-finished", job] == 0
    assert shown["cifarray_run_gpu_seconds", "a-finished", job] == pytest.approx(4 * 600, abs=1)
    assert shown["cifarray_run_gpu_seconds", "a-pending", job] == 0
    of_job = sum(value for key, value in shown.items() if key[0] == "cifarray_run_gpu_seconds")
    assert shown["cifarray_job_gpu_seconds", job] == pytest.approx(of_job)
    success = shown["cifarray_job_last_success_timestamp_seconds", job]
    ended = one_of_each["finished"].status().ended_at
    assert ended is not None and success == datetime.fromisoformat(ended).timestamp()


def test_a_run_is_lost_once_its_heartbeat_was_seen_not_to_move_and_not_by_the_clock(
    here: Store, add_run: AddRun
):
    run, time = add_run("a-run"), 0.0
    attempt = run.start_attempt("a driver")
    attempt._write(heartbeat_at=ago(3600))  # by a clock that is an hour late
    before = {entry.key: here.read(entry.key) for entry in here.list()}
    watch = StoreWatch(here, interval_s=30.0, clock=lambda: time)
    states = []
    for time in (0.0, 30.0, 60.0):  # noqa: B007
        shown = read(watch)
        states.append((shown["cifarray_runs", "running"], shown["cifarray_runs", "lost"]))
    assert states == [(1, 0), (1, 0), (0, 1)]
    assert {entry.key: here.read(entry.key) for entry in here.list()} == before
    attempt.heartbeat()
    time = 90.0
    assert read(watch)["cifarray_runs", "running"] == 1
    time = 1000.0  # the exporter itself was stopped: it has seen nothing meanwhile
    assert read(watch)["cifarray_runs", "running"] == 1


def test_a_run_that_ended_long_ago_is_only_counted(here: Store, add_run: AddRun):
    old = {"started_at": ago(9000), "ended_at": ago(8000), "attempts": 1}
    add_run("long-ago", state="finished", **old)
    shown = read(StoreWatch(here))
    assert shown["cifarray_runs", "finished"] == 1
    assert shown["cifarray_job_gpu_seconds", "train-digits"] == pytest.approx(4000, abs=1)
    assert not [key for key in shown if "long-ago" in key]


def test_a_deleted_run_is_gone_after_the_next_round(here: Store, one_of_each: dict[str, Run]):
    watch = StoreWatch(here)
    read(watch)
    here.delete_folder(one_of_each["failed"].prefix)
    shown = read(watch)
    assert shown["cifarray_runs", "failed"] == 0
    assert not [key for key in shown if "a-failed" in key]


def test_a_live_run_is_read_in_each_round(here: Store, one_of_each: dict[str, Run]):
    watch = StoreWatch(here)
    read(watch)
    one_of_each["running"].change_status(
        lambda status: dataclasses.replace(status, attempts=2, heartbeat_at=ago(0))
    )
    shown = read(watch)
    assert shown["cifarray_run_attempts", "a-running", "train-digits"] == 2
    assert shown["cifarray_run_heartbeat_age_seconds", "a-running", "train-digits"] < 5


def test_a_damaged_job_yaml_counts_as_an_error_and_hides_no_run(
    here: Store, one_of_each: dict[str, Run]
):
    here.write(one_of_each["running"].key("job.yaml"), b"{")
    watch = StoreWatch(here)
    shown = read(watch)
    assert shown["cifarray_store_read_errors_total",] == 1
    assert shown["cifarray_store_up",] == 1
    assert shown["cifarray_runs", "running"] == 1
    assert shown["cifarray_run_gpu_seconds", "a-running", "train-digits"] == 0


def test_a_store_that_is_away_is_said_so_and_what_was_read_stays(
    here: Store, one_of_each: dict[str, Run]
):
    watch = StoreWatch(here)
    before = read(watch)
    root = Path(here.uri)
    kept = root.rename(root.with_name("kept"))
    root.symlink_to(root)  # a name that leads nowhere fails as a mount that hangs does
    for errors in (1, 2):
        assert isinstance(watch.read(), StoreError)
        away = values(watch)
        assert away["cifarray_store_up",] == 0
        assert away["cifarray_store_read_errors_total",] == errors
        unchanged = [key for key in before if not key[0].startswith("cifarray_store_")]
        assert {key: away[key] for key in unchanged} == {key: before[key] for key in unchanged}
        last_read = "cifarray_store_last_read_timestamp_seconds"
        assert away[last_read,] == before[last_read,]
    root.unlink()
    kept.rename(root)
    assert read(watch)["cifarray_store_up",] == 1


def test_a_run_whose_status_cannot_be_read_stays_as_it_was(
    here: Store, one_of_each: dict[str, Run]
):
    watch = StoreWatch(here)
    before = read(watch)
    status = Path(here.uri) / one_of_each["running"].key("status.json")
    status.unlink()
    status.symlink_to(status)
    assert isinstance(watch.read(), StoreError)
    away = values(watch)
    key = "cifarray_run_heartbeat_age_seconds", "a-running", "train-digits"
    assert away["cifarray_store_up",] == 0
    assert away[key] == before[key]
    assert away["cifarray_runs", "running"] == 1


def test_a_bucket_is_read_as_a_directory_is(s3: S3Server, tmp_path: Path):
    bucket = s3.new_store()
    run = Run.create(bucket, run_spec("in-a-bucket"))
    run.start_attempt("a driver").close("finished")
    shown = read(StoreWatch(bucket))
    assert shown["cifarray_runs", "finished"] == 1
    assert shown["cifarray_store_up",] == 1
