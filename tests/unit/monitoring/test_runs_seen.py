"""What a run's status gives: GPU time, silence and progress, and nothing where it says nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cifarray.metrics import STORE
from cifarray.monitoring.exporter import Seen, job_samples, run_samples
from cifarray.runs import Status

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
RUNNING = {
    "state": "running",
    "job": "train-digits",
    "kind": "train",
    "attempts": 2,
    "started_at": "2026-11-23T11:00:00+00:00",
    "heartbeat_at": "2026-11-23T11:59:50+00:00",
}


def seen(shown: str | None = None, gpus: float | None = 4.0, **fields: Any) -> Seen:
    status = Status(**{**RUNNING, **fields})
    return Seen(status, shown or status.state, gpus, NOW)


def values(of: Seen) -> dict[str, float]:
    return {sample.name: sample.value for sample in run_samples("a-run", of)}


@pytest.mark.parametrize(
    ("run", "hours"),
    [
        (seen(), 1.0),
        (seen(started_at=None), 0.0),
        (seen("lost", heartbeat_at="2026-11-23T11:30:00+00:00"), 0.5),
        (seen(state="finished", ended_at="2026-11-23T11:15:00+00:00"), 0.25),
        (seen(gpus=None), 0.0),
        (seen(gpus=0.0), 0.0),
    ],
    ids=["running", "never began", "lost", "finished", "job.yaml damaged", "on CPUs"],
)
def test_gpu_time_lasts_from_the_beginning_to_the_end_or_the_last_sign_of_life(
    run: Seen, hours: float
):
    assert run.gpu_seconds == pytest.approx(4.0 * 3600 * hours)


def test_a_running_run_tells_how_long_it_has_been_silent():
    assert values(seen())["cifarray_run_heartbeat_age_seconds"] == 10.0
    assert values(seen("lost"))["cifarray_run_heartbeat_age_seconds"] == 10.0
    ended = seen(state="finished", ended_at="2026-11-23T11:59:55+00:00")
    assert "cifarray_run_heartbeat_age_seconds" not in values(ended)


def test_progress_is_epochs_of_a_training_and_of_all_trials_of_a_sweep():
    training = seen(progress={"unit": "epochs", "done": 7, "total": 9})
    sweep = seen(kind="tune", progress={"unit": "trials", "done": 3, "epochs": 21})
    assert values(training)["cifarray_run_epochs"] == 7
    assert values(sweep)["cifarray_run_epochs"] == 21
    (sample,) = (s for s in run_samples("a", sweep) if s.name == "cifarray_run_epochs")
    assert sample.labels["kind"] == "tune"


@pytest.mark.parametrize(("loss", "is_nan"), [(0.4, 0.0), (None, 1.0)])
def test_a_loss_that_the_record_holds_as_null_was_no_number(loss: float | None, is_nan: float):
    last = {"epoch": 1, "train.running_loss": loss}
    run = seen(progress={"unit": "epochs", "done": 1, "last": last})
    assert values(run)["cifarray_run_loss_is_nan"] == is_nan


def test_a_status_of_somebody_elses_making_shows_what_can_be_read_of_it():
    odd = seen(
        best={"metric": "made up", "value": 1.0},
        progress={"unit": 3, "done": "many", "epochs": [1], "last": "none"},
        heartbeat_at="yesterday",
        started_at="",
    )
    assert set(values(odd)) == {"cifarray_run_attempts", "cifarray_run_gpu_seconds"}
    nan = seen(best={"metric": "validation.top1", "value": float("nan")})
    assert "cifarray_run_best" not in values(nan)


def test_a_job_has_the_gpu_time_of_all_its_runs_and_its_last_success():
    early, late = "2026-11-23T11:15:00+00:00", "2026-11-23T11:30:00+00:00"
    runs = [
        seen(state="finished", ended_at=late),
        seen(state="finished", ended_at=early),
        seen(state="failed", ended_at="2026-11-23T11:45:00+00:00"),
        seen(job="never-finished"),
    ]
    found = {(s.name, s.labels["job_name"]): s.value for s in job_samples(runs)}
    success = "cifarray_job_last_success_timestamp_seconds"
    assert found[success, "train-digits"] == datetime.fromisoformat(late).timestamp()
    assert (success, "never-finished") not in found
    assert found["cifarray_job_gpu_seconds", "train-digits"] == 4.0 * (1800 + 900 + 2700)


def test_every_sample_is_registered_with_its_labels():
    run = seen(
        best={"metric": "validation.top1", "value": 0.5, "epoch": 1},
        progress={"unit": "epochs", "done": 1, "last": {"train.running_loss": 0.4}},
    )
    samples = [*run_samples("a-run", run), *job_samples([run])]
    assert {"cifarray_run_best", "cifarray_run_loss_is_nan"} <= {s.name for s in samples}
    for sample in samples:
        assert set(sample.labels) == set(STORE[sample.name].labels)
