"""What the adapter asks of Ray Tune; a node is needed only to run it."""

import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.store.layout import Place
from cifarray.training.ray_tune import (
    CASE,
    _Endings,
    scheduler,
    search_space,
    trial_resources,
    trial_threads,
    tune_config,
)
from cifarray.training.trials import concurrency
from cifarray.training.worker import Work
from tests.digit_sessions import small_job

SPACE = {
    "optimizer.lr": {"loguniform": [1e-4, 0.1]},
    "model.dropout": {"uniform": [0.0, 0.7]},
    "optimizer.name": {"choice": ["sgd", "adam"]},
    "train.global_batch_size": {"randint": [16, 33]},
}


def sweep(train: dict[str, Any] | None = None, **fields: Any) -> Job:
    given = {"space": SPACE, **fields}
    return small_job(kind="tune", sweep=given, train=train or {"epochs": 9})


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"name": "p", "kind": "local", "workers": 4, **fields})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def work(store: Store, job: Job, where: Profile) -> Work:
    spec = RunSpec(
        run_id="few-digits-1",
        job=job,
        profile=where,
        world_size=1,
        dataset_digest="0" * 64,
        validation_rows=1,
        validation_sha256="0" * 64,
        submitted_at="2026-11-23T10:00:00+00:00",
        versions={},
    )
    return Work(store.spec, spec, Place("few-digits-1", 1))


@pytest.mark.parametrize(
    ("fields", "at_once"),
    [
        ({}, 4),
        ({"max_concurrent": 1}, 1),
        ({"max_concurrent": 99}, 4),
        ({"workers_per_trial": 2}, 2),
        ({"workers_per_trial": 3}, 1),
        ({"trials": 2}, 2),
        ({"workers_per_trial": 2, "max_concurrent": 1}, 1),
    ],
)
def test_as_many_trials_run_at_once_as_the_profile_holds(fields: dict[str, Any], at_once: int):
    assert concurrency(sweep(**fields), profile()) == at_once


def test_samples_of_a_grid_do_not_bound_how_many_trials_run_at_once():
    job = small_job(
        kind="tune",
        sweep={"space": {"seed": {"grid": [1, 2, 3]}}, "search": "grid", "trials": 1},
    )
    assert concurrency(job, profile()) == 4


def test_every_kind_of_domain_is_tunes_own():
    random.seed(0)
    np.random.seed(0)
    drawn = {path: [domain.sample() for _ in range(200)] for path, domain in
             search_space(sweep()).items()}  # fmt: skip
    assert drawn.keys() == SPACE.keys()
    assert 1e-4 <= min(drawn["optimizer.lr"]) < 1e-3 < 1e-2 < max(drawn["optimizer.lr"]) < 0.1
    assert np.median(drawn["optimizer.lr"]) < 0.01  # as many below 10^-2.5 as above
    assert 0 <= min(drawn["model.dropout"]) < max(drawn["model.dropout"]) <= 0.7
    assert set(drawn["optimizer.name"]) == {"sgd", "adam"}
    assert {type(size) for size in drawn["train.global_batch_size"]} <= {int, np.int64}
    assert set(drawn["train.global_batch_size"]) <= set(range(16, 33))


def test_a_grid_is_tunes_own():
    job = small_job(kind="tune", sweep={"space": {"seed": {"grid": [1, 2]}}, "search": "grid"})
    assert search_space(job) == {"seed": {"grid_search": [1, 2]}}


def test_cases_are_tried_once_each_with_the_jobs_own_values_where_they_give_none(store: Store):
    cases = [{"optimizer.lr": 0.1, "train.epochs": 12}, {"augment.horizontal_flip": {"p": 0.2}}]
    job = small_job(
        kind="tune",
        augment={"horizontal_flip": {"p": 0.5}},
        sweep={"search": "cases", "cases": cases, "trials": 9},
    )
    first = {"optimizer.lr": 0.1, "train.epochs": 12, "augment.horizontal_flip": {"p": 0.5}}
    second = {"optimizer.lr": 0.05, "train.epochs": 2, "augment.horizontal_flip": {"p": 0.2}}
    assert search_space(job) == {CASE: {"grid_search": [first, second]}}
    assert tune_config(work(store, job, profile())).num_samples == 1
    assert concurrency(job, profile()) == 2
    rule = scheduler(job)
    assert isinstance(rule, ASHAScheduler)
    assert rule._max_t == 12


def test_asha_counts_in_epochs_up_to_the_jobs_own():
    rule = scheduler(sweep(scheduler={"name": "asha", "grace_epochs": 2, "factor": 4}))
    assert isinstance(rule, ASHAScheduler)
    assert (rule._time_attr, rule._metric, rule._max_t) == ("epoch", "validation.top1", 9)
    assert (rule._brackets[0].rf, rule._metric_op) == (4, 1)


@pytest.mark.parametrize(
    ("domain", "most"), [({"choice": [4, 12]}, 12), ({"randint": [5, 11]}, 10)]
)
def test_asha_counts_up_to_the_longest_trials_epochs(domain: dict[str, Any], most: int):
    rule = scheduler(sweep(space={**SPACE, "train.epochs": domain}))
    assert isinstance(rule, ASHAScheduler)
    assert rule._max_t == most


def test_a_loss_is_better_when_it_is_lower():
    rule = scheduler(sweep(metric="validation.loss"))
    assert isinstance(rule, ASHAScheduler)
    assert rule._metric_op == -1


def test_the_median_rule_waits_for_its_grace():
    rule = scheduler(sweep(scheduler={"name": "median", "grace_epochs": 5}))
    assert isinstance(rule, MedianStoppingRule)
    assert (rule._time_attr, rule._grace_period) == ("epoch", 5)


def test_without_a_scheduler_no_trial_is_stopped():
    assert scheduler(sweep(scheduler={"name": "none"})) is None


@pytest.mark.parametrize("rule", ["asha", "none"])
def test_a_random_search_limits_its_trials_itself(store: Store, rule: str):
    job = sweep(scheduler={"name": rule}, trials=5, time_budget_s=60, max_concurrent=3)
    config = tune_config(work(store, job, profile()))
    assert isinstance(config.search_alg, BasicVariantGenerator)
    assert config.search_alg.max_concurrent == 3
    assert config.max_concurrent_trials is None
    assert (config.num_samples, config.time_budget_s) == (5, 60)
    given = (config.metric, config.mode)  # a scheduler of its own carries them
    assert given == ((None, None) if rule == "asha" else ("validation.top1", "max"))


def test_optuna_searches_the_space_that_the_job_gives(store: Store):
    config = tune_config(work(store, sweep(search="optuna", seed=3), profile()))
    assert isinstance(config.search_alg, OptunaSearch)
    assert config.max_concurrent_trials == 4
    assert set(config.search_alg._space) == set(SPACE)


@pytest.mark.parametrize(
    ("metric", "best"),
    [("validation.loss", "t1"), ("validation.top1", "t2"), ("train.running_loss", "t1")],
)
def test_optuna_looks_for_the_metrics_own_best(store: Store, metric: str, best: str):
    """It calls that trial the best whose value is the lowest of a loss, the highest of top1."""
    job = sweep(search="optuna", metric=metric)
    search = tune_config(work(store, job, profile())).search_alg
    assert isinstance(search, OptunaSearch)
    tried = {}
    for trial_id, value in {"t0": 0.5, "t1": 0.2, "t2": 0.9}.items():
        tried[trial_id] = search.suggest(trial_id)
        search.on_trial_complete(trial_id, {metric: value, "epoch": 9})
    assert search._ot_study.best_params == tried[best]


def stops(rule: TrialScheduler, epoch: int, values: dict[str, float], metric: str) -> set[str]:
    """Which trials the rule stops of those that report these values after this epoch, in turn."""
    controller = SimpleNamespace()
    stopped = set()
    for trial_id, value in values.items():
        trial: Any = SimpleNamespace(trial_id=trial_id)
        if epoch == 1:
            rule.on_trial_add(controller, trial)
        result = {"epoch": epoch, metric: value}
        if rule.on_trial_result(controller, trial, result) == TrialScheduler.STOP:
            stopped.add(trial_id)
    return stopped


@pytest.mark.parametrize(
    ("metric", "values", "weak"),
    [
        ("validation.top1", {"t0": 0.9, "t1": 0.8, "t2": 0.7, "t3": 0.1}, {"t1", "t2", "t3"}),
        ("validation.loss", {"t0": 0.1, "t1": 0.2, "t2": 0.7, "t3": 0.9}, {"t1", "t2", "t3"}),
    ],
)
def test_asha_stops_weak_trials_at_its_rungs_and_none_within_the_grace(
    metric: str, values: dict[str, float], weak: set[str]
):
    """Rungs are 2 and 6 epochs: one of 3 continues from each, and none is stopped between them."""
    given = {"name": "asha", "grace_epochs": 2, "factor": 3}
    rule = scheduler(sweep(scheduler=given, metric=metric))
    assert rule is not None
    assert stops(rule, 1, values, metric) == set()
    assert stops(rule, 2, values, metric) == weak
    best = {"t0": values["t0"]}
    assert all(stops(rule, epoch, best, metric) == set() for epoch in range(3, 9))
    assert stops(rule, 9, best, metric) == {"t0"}, "no trial is longer than the job's epochs"


def test_the_state_of_a_sweep_from_before_this_module_had_its_name_can_be_read():
    found = pickle.loads(b"ccifarray.tuning.sweep\n_Endings\n)R.")
    assert isinstance(found, _Endings)


def test_a_trial_of_one_worker_reserves_what_a_worker_gets(store: Store):
    job = sweep()
    assert trial_resources(work(store, job, profile())) == {"cpu": 0.5}
    gpus = profile(gpus_per_worker=0.5, cpus_per_worker=2)
    assert trial_resources(work(store, job, gpus)) == {"cpu": 2, "gpu": 0.5}


def test_a_larger_trial_leaves_the_room_to_its_workers(store: Store):
    reserved = trial_resources(work(store, sweep(workers_per_trial=2), profile()))
    assert 0 < reserved["cpu"] < 0.1
    assert "gpu" not in reserved


def test_a_trials_threads_are_the_profiles_or_its_share_of_the_cores(store: Store):
    assert trial_threads(work(store, sweep(), profile(threads_per_worker=3))) == 3
    alone = trial_threads(work(store, sweep(max_concurrent=1), profile()))
    shared = trial_threads(work(store, sweep(), profile(workers=1000)))
    assert alone >= shared == 1
