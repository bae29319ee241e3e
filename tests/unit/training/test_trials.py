"""What the trials of a sweep left behind: their states, the best of them, and the job of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifarray.errors import JobError
from cifarray.runs.metrics_log import write_metrics
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.training.trials import (
    TrialRecord,
    best_trial,
    case_values,
    read_trials,
    trial_job,
)
from tests.digit_sessions import small_job

FOLDER = "runs/r/attempts/1/trials"
Put = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def put(store: Store) -> Put:
    """Leaves what a trial of the given validation.top1 per epoch leaves."""

    def put_trial(name: str, *top1: float, ended: str | None = None, **params: Any) -> None:
        prefix = f"{FOLDER}/{name}"
        store.write_json(f"{prefix}/trial.json", {"id": name, "params": params})
        records = [{"epoch": n, "validation.top1": value} for n, value in enumerate(top1, start=1)]
        write_metrics(store, prefix, records)
        if ended is not None:
            store.write_json(f"{prefix}/ended.json", {"state": ended})

    return put_trial


def states(store: Store, errors: dict[str, str] | None = None, total: int | None = 3) -> list[str]:
    return [trial.state for trial in read_trials(store, FOLDER, errors or {}, total)]


def test_a_sweep_that_has_not_begun_has_no_trials(store: Store):
    assert read_trials(store, FOLDER, {}, 3) == []


def test_trials_come_in_the_order_in_which_they_were_made(store: Store, put: Put):
    for number in (2, 0, 11, 1):
        put(f"ab12_{number:05d}", 0.1 * number, **{"optimizer.lr": number})
    trials = read_trials(store, FOLDER, {}, 3)
    assert [trial.params["optimizer.lr"] for trial in trials] == [0, 1, 2, 11]
    assert [trial.id for trial in trials] == [f"ab12_{number:05d}" for number in (0, 1, 2, 11)]


def test_a_trial_that_said_so_is_finished(store: Store, put: Put):
    put("t1", 0.1, ended="finished")
    assert states(store) == ["finished"]


def test_a_trial_with_every_epoch_is_finished_even_if_tune_stopped_it_there(store: Store, put: Put):
    put("t1", 0.1, 0.2, 0.3, ended="stopped early")
    put("t2", 0.1, 0.2, 0.3)
    assert states(store) == ["finished", "finished"]


def test_a_trial_with_a_number_of_epochs_of_its_own_is_finished_by_that(store: Store, put: Put):
    put("t1", 0.1, 0.2, ended="stopped early", **{"train.epochs": 2})
    put("t2", 0.1, 0.2, 0.3, ended="stopped early", **{"train.epochs": 9})
    assert states(store) == ["finished", "stopped early"]


def test_a_trial_that_was_stopped_before_its_end_is_stopped_early(store: Store, put: Put):
    put("t1", 0.1, 0.2, ended="stopped early")
    assert states(store) == ["stopped early"]


def test_a_trial_that_ended_in_no_way_is_unfinished(store: Store, put: Put):
    put("t1", 0.1, 0.2)
    put("t2")
    assert states(store) == ["unfinished", "unfinished"]


def test_without_a_number_of_epochs_only_an_ending_finishes_a_trial(store: Store, put: Put):
    put("t1", *[0.1] * 50)
    put("t2", 0.1, ended="finished")
    assert states(store, total=None) == ["unfinished", "finished"]


def test_a_trial_with_an_error_has_failed_and_tells_it(store: Store, put: Put):
    put("t1", 0.1, 0.2, 0.3, ended="finished")
    (trial,) = read_trials(store, FOLDER, {"t1": "no memory"}, 3)
    assert (trial.state, trial.error) == ("failed", "no memory")


def test_a_trial_that_diverged_has_failed_with_what_it_said_itself(store: Store, put: Put):
    put("t1", 0.1)
    store.write_json(f"{FOLDER}/t1/ended.json", {"state": "failed", "error": "the loss diverged"})
    (trial,) = read_trials(store, FOLDER, {}, 3)
    assert (trial.state, trial.error) == ("failed", "the loss diverged")


def test_an_epoch_that_diverged_is_no_trials_best():
    history = [
        {"epoch": 1, "train.running_loss": 2.0, "validation.top1": 0.2},
        {"epoch": 2, "train.running_loss": None, "validation.top1": 0.9},
    ]
    assert TrialRecord("t1", {}, history, "failed").best("validation.top1") == 0.2


def test_folders_that_are_no_trials_are_passed_over(store: Store, put: Put):
    put("t1", 0.1)
    store.write(f"{FOLDER}/t2/metrics.jsonl", b"")
    store.write(f"{FOLDER}/tuner.pkl", b"")
    store.write(f"{FOLDER}/t3/trial.json", b"{ half")
    assert [trial.id for trial in read_trials(store, FOLDER, {}, 3)] == ["t1"]


def trial(name: str, *top1: float | None) -> TrialRecord:
    history = [
        {"epoch": epoch, "validation.top1": value, "validation.loss": value and 1 - value}
        for epoch, value in enumerate(top1, start=1)
    ]
    return TrialRecord(name, {"optimizer.lr": 0.1}, history, "finished")


@pytest.mark.parametrize("metric", ["validation.top1", "validation.loss"])
def test_the_best_trial_is_the_one_whose_best_epoch_is_the_best(metric: str):
    trials = [trial("a", 0.4, 0.5), trial("b", 0.9, 0.1), trial("c", 0.6, 0.8)]
    best = best_trial(trials, metric)
    assert best is not None
    assert best.id == "b"


def test_of_equally_good_trials_the_first_is_the_best():
    best = best_trial([trial("a", 0.1), trial("b", 0.5), trial("c", 0.5)], "validation.top1")
    assert best is not None
    assert best.id == "b"


def test_without_any_value_no_trial_is_the_best():
    assert best_trial([], "validation.top1") is None
    assert best_trial([trial("a"), trial("b", None)], "validation.top1") is None


def test_epochs_without_a_number_do_not_count():
    assert trial("a", None, 0.3, None).best("validation.top1") == 0.3
    best = best_trial([trial("a", None), trial("b", 0.1)], "validation.top1")
    assert best is not None
    assert best.id == "b"


def test_the_report_gets_a_trial_as_plain_values():
    given = trial("a", 0.4, 0.5)
    record = given.as_dict()
    assert json.loads(json.dumps(record)) == {
        "id": "a",
        "params": {"optimizer.lr": 0.1},
        "epochs": 2,
        "state": "finished",
        "validation.top1": 0.5,
        "history": given.history,
        "error": None,
    }


def sweep(**sections: Any) -> Job:
    space = {"optimizer.lr": {"loguniform": [1e-4, 0.1]}}
    return small_job(**{"kind": "tune", "sweep": {"space": space}, **sections})


def test_a_trials_job_is_a_train_job_with_the_trials_values():
    job = trial_job(sweep(seed=4), {"optimizer.lr": 0.07, "model.dropout": 0.3})
    assert (job.kind, job.sweep, job.seed) == ("train", None, 4)
    assert (job.optimizer.lr, job.model.dropout) == (0.07, 0.3)
    assert job.train == sweep().train


@pytest.mark.parametrize(
    ("params", "momentum"),
    [
        ({"optimizer.name": "adam", "optimizer.momentum": 0.5}, None),
        ({"optimizer.name": "adamw"}, None),
        ({"optimizer.name": "sgd", "optimizer.momentum": 0.5}, 0.5),
        ({"optimizer.name": "rmsprop"}, 0.9),
    ],
)
def test_a_trials_job_drops_what_its_optimizer_does_not_read(
    params: dict[str, Any], momentum: float | None
):
    assert trial_job(sweep(), params).optimizer.momentum == momentum


def test_a_trials_job_drops_what_its_schedule_does_not_read():
    job = sweep(schedule={"name": "step", "every_epochs": 1.0, "gamma": 0.5})
    schedule = trial_job(job, {"schedule.name": "cosine"}).schedule
    assert (schedule.name, schedule.every_epochs, schedule.gamma) == ("cosine", None, None)


def test_a_trials_job_drops_what_its_network_does_not_read():
    job = sweep(model={"name": "my.package:net", "args": {"width": 3}})
    assert trial_job(job, {"model.name": "cnn3", "model.args.width": 5}).model.args == {}
    own = trial_job(job, {"model.name": "my.package:net", "model.args.width": 5})
    assert own.model.args == {"width": 5}
    few = sweep(model={"name": "cnn3", "dropouts": [0.1, 0.1, 0.1]})
    assert trial_job(few, {"model.name": "resnet18"}).model.dropouts is None


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(JobError, match=r"optimizer\.lr: .* greater than 0"):
        trial_job(sweep(), {"optimizer.lr": -1.0})


def test_cases_with_lists_of_records_are_plain_values_that_a_trial_can_take_and_a_store_keep():
    groups = [{"pattern": "weight", "lr_scale": 0.5, "weight_decay": None}]
    cases = [{"optimizer.groups": []}, {"optimizer.lr": 0.1}]
    job = sweep(optimizer={"groups": groups}, sweep={"search": "cases", "cases": cases})
    first, second = case_values(job)
    assert json.loads(json.dumps(second)) == {"optimizer.lr": 0.1, "optimizer.groups": groups}
    assert trial_job(job, first).optimizer.groups == ()
    assert trial_job(job, second).optimizer.groups == job.optimizer.groups
