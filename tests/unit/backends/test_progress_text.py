"""The one line that says how far a run is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cifarray.backends.progress_text import TimeEstimate, clock, fraction_done, progress_line
from cifarray.runs import Status

RECORD = {
    "epoch": 3,
    "validation.top1": 0.41,
    "validation.loss": 1.5,
    "images_per_s": 812.4,
    "epoch_s": 4.0,
}
BEST = {"metric": "validation.top1", "value": 0.412, "epoch": 2}


def running(progress: dict[str, Any] | None = None, **fields: Any) -> Status:
    return Status("running", progress=progress, **fields)


def test_epochs_show_value_best_speed_and_time_left() -> None:
    progress = {"unit": "epochs", "done": 3, "total": 30, "last": RECORD}
    assert progress_line(running(progress, best=BEST), remaining_s=108) == (
        "epoch 3/30  validation.top1 0.4100 (best 0.4120)  812 images/s  ETA 1:48"
    )


def test_a_run_that_ends_by_steps_has_no_total_and_no_time_left() -> None:
    progress = {"unit": "epochs", "done": 3, "total": None, "last": RECORD}
    status = running(progress, best=BEST)
    assert progress_line(status).startswith("epoch 3  ")
    assert TimeEstimate().remaining_s(status) is None
    assert fraction_done(status) is None


def test_the_last_epoch_is_followed_by_the_report() -> None:
    progress = {"unit": "epochs", "done": 30, "total": 30, "last": RECORD}
    assert progress_line(running(progress, best=BEST)).endswith("evaluating, writing the report")
    assert "report" not in progress_line(Status("finished", progress=progress, best=BEST))


def test_before_the_first_epoch_workers_are_starting() -> None:
    assert progress_line(running()) == "starting workers"
    assert progress_line(running({"unit": "epochs", "done": 0, "total": 3})) == "starting workers"


def test_trials_show_how_many_and_the_best_ones_fields() -> None:
    params = {"optimizer.lr": 0.012345, "optimizer.name": "adam", "model.dropout": 0.25}
    progress = {"unit": "trials", "done": 5, "total": 20, "running": 2, "stopped_early": 3}
    status = running(progress, best={**BEST, "params": params})
    assert progress_line(status, remaining_s=180) == (
        "trials 5/20 done, 2 running, 3 stopped early  "
        "best validation.top1 0.4120 (lr 0.0123, optimizer adam, dropout 0.25)  ETA 3:00"
    )
    assert fraction_done(status) == 0.25


def test_the_pace_is_what_was_seen_and_runs_down_between_two_epochs() -> None:
    now = 100.0
    estimate = TimeEstimate(clock=lambda: now)

    def remaining_s(done: int) -> float | None:
        progress = {"unit": "epochs", "done": done, "total": 10, "last": {"epoch_s": 1.0}}
        return estimate.remaining_s(running(progress))

    assert remaining_s(0) is None
    assert remaining_s(2) == 8.0, "at first the last epoch's own time"
    now += 6.0
    assert remaining_s(4) == 6 * 3.0
    now += 2.0
    assert remaining_s(4) == 6 * 3.0 - 2.0
    assert remaining_s(10) is None


def test_before_any_trial_was_seen_to_end_the_time_of_all_tells() -> None:
    started = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    progress = {"unit": "trials", "done": 5, "total": 20}
    remaining_s = TimeEstimate().remaining_s(running(progress, started_at=started))
    assert remaining_s == pytest.approx(180, abs=5)


@pytest.mark.parametrize(
    "progress",
    [
        {"unit": "epochs"},
        {"unit": "epochs", "done": "3", "total": {}},
        {"unit": "epochs", "done": 2, "total": 3, "last": "x"},
        {"unit": "trials", "done": None, "total": True},
        {"unit": 3},
    ],
)
def test_damaged_progress_does_not_break_the_line(progress: dict[str, Any]) -> None:
    status = running(progress, best={"value": "x", "params": []})
    assert progress_line(status)
    assert TimeEstimate().remaining_s(status) is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (62, "1:02"), (3599.7, "1:00:00"), (7325, "2:02:05")]
)
def test_a_clock_shows_hours_where_there_are_any(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
