"""What a running attempt tells of itself."""

import time
from typing import Any

import pytest

from cifarray.backends.progress_text import progress_line
from cifarray.driver.heartbeat import POLL_S, WaitsFor, best_so_far, read_progress, watched
from cifarray.errors import LeaseLostError
from cifarray.runs import Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.store.patience import Wait
from cifarray.training.trials import trial_count
from tests.digit_sessions import small_job

FOLDER = "runs/r/attempts/1"


def records(*top1: float) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "validation.top1": value, "validation.loss": 1 - value}
        for epoch, value in enumerate(top1, start=1)
    ]


@pytest.fixture
def store(tmp_path: Any) -> Store:
    return Store.open(str(tmp_path))


def sweep(**fields: Any) -> Job:
    space = {"optimizer.lr": {"loguniform": [1e-3, 0.1]}}
    return small_job(
        kind="tune", train={"epochs": 3}, sweep={"space": space, "trials": 9, **fields}
    )


def put_trial(store: Store, name: str, *top1: float, ended: str | None = None) -> None:
    prefix = f"{FOLDER}/trials/{name}"
    store.write_json(f"{prefix}/trial.json", {"id": name, "params": {"optimizer.lr": 0.1}})
    write_metrics(store, prefix, records(*top1))
    if ended:
        store.write_json(f"{prefix}/ended.json", {"state": ended})


def test_a_training_that_has_not_ended_an_epoch_has_done_none(store: Store):
    progress, best = read_progress(store, FOLDER, small_job())
    assert progress == {"unit": "epochs", "done": 0, "total": 2}
    assert best is None


def test_a_training_tells_its_epochs_the_last_record_and_the_best_value(store: Store):
    write_metrics(store, FOLDER, records(0.3, 0.9, 0.5))
    progress, best = read_progress(store, FOLDER, small_job(train={"epochs": 7}))
    assert progress == {"unit": "epochs", "done": 3, "total": 7, "last": records(0.3, 0.9, 0.5)[2]}
    assert best == {"metric": "validation.top1", "value": 0.9, "epoch": 2}


def test_the_best_value_is_that_of_the_metric_that_the_job_chooses_by(store: Store):
    write_metrics(store, FOLDER, records(0.3, 0.75, 0.5))
    job = small_job(train={"early_stopping": {"metric": "validation.loss"}})
    assert read_progress(store, FOLDER, job)[1] == {
        "metric": "validation.loss",
        "value": 0.25,
        "epoch": 2,
    }


def test_a_training_in_steps_has_no_number_of_epochs(store: Store):
    job = small_job(train={"epochs": None, "steps": 40})
    assert read_progress(store, FOLDER, job)[0]["total"] is None


def test_a_sweep_tells_its_trials_by_their_states_and_the_best_with_its_values(store: Store):
    put_trial(store, "t0", 0.1, 0.2, 0.3, ended="finished")
    put_trial(store, "t1", 0.8, ended="stopped early")
    put_trial(store, "t2", 0.4, 0.5)
    put_trial(store, "t3")
    progress, best = read_progress(store, FOLDER, sweep())
    assert progress == {
        "unit": "trials",
        "done": 2,
        "total": 9,
        "running": 2,
        "stopped_early": 1,
        "epochs": 6,
    }
    assert best == {
        "metric": "validation.top1",
        "value": 0.8,
        "epoch": 1,
        "trial_id": "t1",
        "params": {"optimizer.lr": 0.1},
    }


def test_a_sweep_that_has_not_begun_has_done_nothing(store: Store):
    progress, best = read_progress(store, FOLDER, sweep())
    assert (progress["done"], progress["running"], progress["epochs"]) == (0, 0, 0)
    assert best is None


def test_a_grid_makes_a_trial_per_point_and_sample():
    space = {
        "optimizer.lr": {"grid": [0.1, 0.2, 0.3]},
        "seed": {"grid": [0, 1]},
        "model.dropout": {"uniform": [0, 0.5]},
    }
    assert trial_count(sweep(space=space, search="grid", trials=2)) == 12
    assert trial_count(sweep()) == 9
    cases = [{"seed": 1}, {"seed": 2}, {"optimizer.lr": 0.1}]
    assert trial_count(sweep(space={}, search="cases", cases=cases)) == 3


def test_records_without_the_metric_are_never_the_best():
    assert best_so_far([], "validation.top1") is None
    found = best_so_far([{"epoch": 1}, {"epoch": 2, "validation.top1": None}], "validation.top1")
    assert found is None
    assert best_so_far([{"epoch": 1}, *records(0.1)[:1]], "validation.top1") == {
        "metric": "validation.top1",
        "value": 0.1,
        "epoch": 1,
    }


def test_what_came_last_is_in_the_status_when_the_attempt_ends(run: Run):
    attempt = run.start_attempt("a test")
    with watched(attempt, run.spec(), WaitsFor()):
        write_metrics(run.store, attempt.prefix, records(0.3, 0.6))
    status = run.status()
    assert status.progress is not None
    assert status.progress["done"] == 2
    assert status.best == {"metric": "validation.top1", "value": 0.6, "epoch": 2}


def test_an_attempt_that_lost_its_run_ends_though_it_has_no_news(run: Run):
    attempt = run.start_attempt("one")
    alive = attempt.keep_alive(every_s=0.1)
    with pytest.raises(LeaseLostError), alive, watched(attempt, run.spec(), WaitsFor()):
        while not run.status().progress:
            time.sleep(0.1)
        run.start_attempt("two")
        time.sleep(5 * POLL_S)


def test_an_attempt_that_is_no_longer_in_charge_tells_nothing(run: Run):
    attempt = run.start_attempt("one")
    run.start_attempt("two")
    with watched(attempt, run.spec(), WaitsFor()):
        write_metrics(run.store, attempt.prefix, records(0.3))
    assert run.status().progress is None


def test_what_an_attempt_waits_for_is_in_the_status_until_it_has_come(run: Run):
    attempt = run.start_attempt("a test")
    waits_for = WaitsFor()
    with watched(attempt, run.spec(), waits_for):
        waits_for.capacity("capacity for 2 workers with 1 GPUs each; the cluster has 0 GPUs")
    waiting = run.status()
    assert waiting.progress is not None
    assert waiting.progress["waits_for"].startswith("capacity for 2 workers")
    assert progress_line(waiting) == f"waiting for {waiting.progress['waits_for']}"
    with watched(attempt, run.spec(), waits_for):
        waits_for.capacity("")
    assert run.status().progress == {"unit": "epochs", "done": 0, "total": 2}


def test_a_driver_that_waits_for_space_in_the_store_says_so_in_the_status(run: Run):
    attempt, waits_for = run.start_attempt("a test"), WaitsFor()
    with watched(attempt, run.spec(), waits_for):
        waits_for.store(Wait("10:00:00", "507", full=True))
    progress = run.status().progress
    assert progress is not None
    assert progress["waits_for"] == "space in the store since 10:00:00: 507"
    with watched(attempt, run.spec(), waits_for):
        waits_for.store(None)
    assert "waits_for" not in (run.status().progress or {})
