"""The adapter to Ray Tune: searches a job's space, stops weak trials, resumes after a crash."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher
from ray.tune.search.optuna import OptunaSearch

from cifarray.errors import RunFailedError
from cifarray.metrics import OBJECTIVES
from cifarray.runs.failures.causes import find_cause
from cifarray.spec.job import Job
from cifarray.spec.sweep import Domain
from cifarray.store.layout import ENDED_FILE, TRIAL_FILE, TRIALS
from cifarray.training.checkpoint_store import StoredCheckpoint, best_good
from cifarray.training.failures import fails_again
from cifarray.training.ray_train import train_trial
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer
from cifarray.training.trials import (
    TrialRecord,
    best_trial,
    case_values,
    concurrency,
    most_epochs,
    read_trials,
    sweep_of,
)
from cifarray.training.worker import (
    Work,
    cores,
    open_rows,
    open_trainer,
    refuse_without_gpus,
    summary_line,
    train_with_checkpoints,
)

CASE = "case"
"""Key of a trial's fields where they were given as a whole."""
TUNE_SETTINGS = {
    "TUNE_GLOBAL_CHECKPOINT_S": "5",  # what a killed driver may have to do again
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # it is small: no warning
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C gives a finished sweep
    "RAY_AIR_NEW_OUTPUT": "0",  # the driver's log has a line per epoch instead
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard would show each trial twice
}


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    trials: list[TrialRecord]
    best: TrialRecord
    checkpoint: StoredCheckpoint


def sweep(work: Work) -> SweepResult:
    """Search the job's space, resuming from Tune's folder in the attempt if there is one.

    Raises: RunFailedError when no trial finished an epoch.
    """
    spec = sweep_of(work.job)
    for name, value in TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    store = work.open_store()
    path, filesystem = store.path(work.place.key(TRIALS)), store.filesystem()
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, work=work), trial_resources(work)
    )
    if tune.Tuner.can_restore(path, storage_filesystem=filesystem):
        tuner = tune.Tuner.restore(
            path, trainable, resume_errored=True, storage_filesystem=filesystem
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=None if spec.search == "optuna" else search_space(work.job),
            tune_config=tune_config(work),
            run_config=tune.RunConfig(
                name=TRIALS,
                storage_path=store.path(work.place.prefix),
                storage_filesystem=filesystem,
                verbose=0,
                callbacks=[_Endings(), JsonLoggerCallback()],
                failure_config=tune.FailureConfig(max_failures=work.profile.max_failures),
            ),
        )
    _Endings.work = work
    results = tuner.fit()
    return _result(work, [results[i] for i in range(len(results))])


def _result(work: Work, results: Sequence[tune.Result]) -> SweepResult:
    store, spec = work.open_store(), sweep_of(work.job)
    folder = work.place.key(TRIALS)
    errors = {
        trial_id: find_cause(result.error).sentence
        for result in results
        if result.error is not None
        for trial_id in store.folders(folder)
        if Path(result.path).name.startswith(trial_id)
    }
    trials = read_trials(store, folder, errors, work.job.train.epochs)
    best = best_trial(trials, spec.metric)
    if best is None:
        told = (*(trial.error for trial in trials if trial.error), *errors.values(), "none ran")
        raise RunFailedError(f"none of {len(trials)} trials finished an epoch: {told[0]}")
    with tempfile.TemporaryDirectory() as scratch:
        found = best_good(store, work.place.of_trial(best.id).prefix, spec.metric, Path(scratch))
    if found is None:
        raise RunFailedError(f"the best trial, {best.id}, has no complete checkpoint left")
    return SweepResult(trials, best, found)


def search_space(job: Job) -> dict[str, Any]:
    """The space as Ray Tune takes it, keyed by dotted job field; cases have one key for all."""
    spec = sweep_of(job)
    if spec.cases:
        return {CASE: tune.grid_search(case_values(job))}
    makers: dict[str, Callable[[Domain], Any]] = {
        "choice": lambda d: tune.choice(list(d.choice or ())),
        "grid": lambda d: tune.grid_search(list(d.grid or ())),
        "uniform": lambda d: tune.uniform(*d.uniform or ()),
        "loguniform": lambda d: tune.loguniform(*d.loguniform or ()),
        "randint": lambda d: tune.randint(*d.randint or ()),
    }
    return {path: makers[domain.kind](domain) for path, domain in spec.space.items()}


def scheduler(job: Job) -> TrialScheduler | None:
    """What stops weak trials; epochs are its clock."""
    spec = sweep_of(job)
    rule, mode = spec.scheduler, OBJECTIVES[spec.metric]
    if rule.name == "asha":
        return ASHAScheduler(
            time_attr="epoch",
            metric=spec.metric,
            mode=mode,
            max_t=max(most_epochs(job) or 0, rule.grace_epochs),
            grace_period=rule.grace_epochs,
            reduction_factor=rule.factor,
        )
    if rule.name == "median":
        return MedianStoppingRule(
            time_attr="epoch", metric=spec.metric, mode=mode, grace_period=rule.grace_epochs
        )
    return None


def tune_config(work: Work) -> tune.TuneConfig:
    """How Tune searches: the sampler, its seed, the stopping rule and the limits."""
    spec, rule = sweep_of(work.job), scheduler(work.job)
    mode, at_once = OBJECTIVES[spec.metric], concurrency(work.job, work.profile)
    search: Searcher | BasicVariantGenerator
    if spec.search == "optuna":
        search = OptunaSearch(search_space(work.job), metric=spec.metric, mode=mode, seed=spec.seed)
    else:  # a generator takes the limit itself: Tune would ignore its own setting
        search = BasicVariantGenerator(random_state=spec.seed, max_concurrent=at_once)
    return tune.TuneConfig(
        metric=None if rule else spec.metric,
        mode=None if rule else mode,
        search_alg=search,
        scheduler=rule,
        num_samples=1 if spec.cases else spec.trials,
        max_concurrent_trials=at_once if spec.search == "optuna" else None,
        time_budget_s=spec.time_budget_s,
        reuse_actors=spec.workers_per_trial == 1,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )


def trial_resources(work: Work) -> dict[str, float]:
    """What a trial's own process reserves; the workers of a larger trial reserve theirs apart."""
    if sweep_of(work.job).workers_per_trial > 1:
        return {"cpu": 0.01}
    gpus = {"gpu": work.profile.gpus_per_worker} if work.profile.gpus_per_worker else {}
    return {"cpu": work.profile.cpus_per_worker, **gpus}


def run_trial(params: dict[str, Any], *, work: Work) -> None:
    """What each trial's process runs: the job with the trial's values in their fields."""
    trial_id = tune.get_context().get_trial_id()
    params = params.get(CASE, params)
    trial = replace(work, place=work.place.of_trial(trial_id), params=params)
    store = work.open_store()
    store.write_json(trial.place.key(TRIAL_FILE), {"id": trial_id, "params": params})
    ended: dict[str, Any] = {"state": "finished"}
    try:
        if trial.world_size == 1:
            train_with_checkpoints(trial, _open(trial, trial_threads(work)), tune.report)
        else:
            train_trial(trial, [TuneReportCallback()])
    except Exception as error:
        if not fails_again(error, trial):
            raise  # Tune tries it again; else it is a result, as of a learning rate too high
        ended = {"state": "failed", "error": str(find_cause(error))}
    store.write_json(trial.place.key(ENDED_FILE), ended)


def trial_threads(work: Work) -> int:
    """Threads of torch in a trial: the profile's number, else this node's cores shared out."""
    here = 1 if work.profile.has_pod_per_worker else concurrency(work.job, work.profile)
    share = max(1, cores() // here)
    return work.profile.threads_per_worker or share


_ROWS: dict[tuple[str, int | None], RowSource] = {}
"""The rows that this process read for an earlier trial; of one run and one size only."""


def _open(trial: Work, threads: int) -> Trainer:
    """The trainer of a trial in this process, on the rows of an earlier one where they fit.

    Its checkpoints never pass through Tune: what that restores of a search are trials that would
    write to the folder of an older attempt.
    """
    refuse_without_gpus(trial.profile, torch.cuda.is_available())
    device = torch.device("cuda" if trial.profile.gpus_per_worker > 0 else "cpu")
    key = (trial.run.run_id, trial.job.preprocess.resize)  # encoded images were read as squares
    if key not in _ROWS:
        _ROWS.clear()
        _ROWS[key] = open_rows(trial, device)
    return open_trainer(trial, device, threads, _ROWS[key])


class _Endings(tune.Callback):
    """Prints each result, and marks in the store what Tune stopped before its end."""

    work: ClassVar[Work]
    """This process's sweep; Tune pickles the callback's own fields, and restores older ones."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        print(
            f"trial {trial.trial_id}  epoch {result['epoch']}  {summary_line(result)}", flush=True
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ended = self.work.place.of_trial(trial.trial_id).key(ENDED_FILE)
        store = self.work.open_store()
        if not store.exists(ended):
            store.write_json(ended, {"state": "stopped early"})
        print(f"trial {trial.trial_id}  ended", flush=True)


# Tune pickles the callback by its path; the state of a sweep that 0.1.0 began has the path of then.
sys.modules.setdefault("cifarray.tuning.sweep", sys.modules[__name__])
