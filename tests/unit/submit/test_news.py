"""The one line that says how far a run is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cifarray.runs import Status
from cifarray.submit.news import clock, fraction_done, progress_line

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
    assert progress_line(running(progress, best=BEST)) == (
        "epoch 3/30  validation.top1 0.4100 (best 0.4120)  812 images/s  ETA 1:48"
    )


def test_a_run_that_ends_by_steps_has_no_total_and_no_time_left() -> None:
    progress = {"unit": "epochs", "done": 3, "total": None, "last": RECORD}
    line = progress_line(running(progress, best=BEST))
    assert line.startswith("epoch 3  ")
    assert "ETA" not in line
    assert fraction_done(running(progress)) is None


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
    started = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    status = running(progress, best={**BEST, "params": params}, started_at=started)
    line = progress_line(status)
    assert line.startswith(
        "trials 5/20 done, 2 running, 3 stopped early  "
        "best validation.top1 0.4120 (lr 0.0123, optimizer adam, dropout 0.25)  ETA 3:0"
    )
    assert fraction_done(status) == 0.25


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
    assert progress_line(running(progress, best={"value": "x", "params": []}))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (62, "1:02"), (3599.7, "1:00:00"), (7325, "2:02:05")]
)
def test_a_clock_shows_hours_where_there_are_any(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
