"""Whoever names a run's best epoch names the same one, whatever ties and NaNs its history has."""

import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cifarray.driver.heartbeat import read_progress
from cifarray.metrics import OBJECTIVES, TRAIN_LOSS, best_epoch, is_better
from cifarray.monitoring.exporter import Seen, run_samples
from cifarray.report.inputs import Trial
from cifarray.runs import Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.runs.pull import chosen_checkpoints
from cifarray.spec.job import EarlyStoppingSpec
from cifarray.store import Store
from cifarray.store.layout import PROOF_FILE
from cifarray.training.checkpoint_store import best_good, checkpoint_name, keep, stored_checkpoints
from cifarray.training.loop import should_stop
from cifarray.training.trials import TrialRecord, best_trial
from tests.unit.runs.conftest import run_spec

FEW_VALUES = (0.25, 0.5, 0.5, 0.75, math.nan, math.inf, -math.inf)
"""So few that most histories have ties."""


def random_history(draw: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            **{name: draw.choice(FEW_VALUES) for name in OBJECTIVES},
            TRAIN_LOSS: draw.choice((0.5, 0.25, 0.5)),
        }
        for epoch in range(1, draw.randint(2, 9))
    ]


def first_best(history: list[dict[str, Any]], metric: str) -> int | None:
    """The rule, said another way: no earlier epoch is as good and no later one is better."""
    finite = [record for record in history if math.isfinite(record[metric])]
    for record in finite:
        others = [other for other in finite if other is not record]
        if not any(
            is_better(metric, other[metric], record[metric])
            or (other[metric] == record[metric] and other["epoch"] < record["epoch"])
            for other in others
        ):
            return int(record["epoch"])
    return None


@pytest.mark.parametrize("seed", range(20))
def test_every_reader_names_the_first_epoch_that_reached_the_best_value(
    seed: int, store: Store, tmp_path: Path
):
    draw = random.Random(seed)
    history, metric = random_history(draw), draw.choice(list(OBJECTIVES))
    expected = first_best(history, metric)
    spec = run_spec("tied-1")
    stopping = EarlyStoppingSpec(metric=metric, patience_epochs=100)
    train = spec.job.train.model_copy(update={"early_stopping": stopping})
    job = spec.job.model_copy(update={"train": train})
    run = Run.create(store, spec.model_copy(update={"job": job}))
    attempt = run.start_attempt("here")
    for done in range(1, len(history) + 1):
        write_metrics(store, attempt.prefix, history[:done])
        keep(
            store,
            attempt.prefix,
            checkpoint_name(done, "0000"),
            {"history": history[:done]},
            job.metric,
        )
        so_far = first_best(history[:done], metric)
        kept = {found.epoch for found in stored_checkpoints(store, attempt.prefix)}
        assert kept == ({done} if so_far is None else {so_far, done})

    named = dict.fromkeys(("loop", "checkpoints", "status", "pull", "exporter", "report", "sweep"))
    named["loop"] = (best_epoch(history, metric) or {}).get("epoch")
    found = best_good(store, attempt.prefix, metric, tmp_path / "best")
    named["checkpoints"] = found and found.epoch
    progress, best = read_progress(store, attempt.prefix, job)
    named["status"] = best and best["epoch"]
    attempt.heartbeat(progress, best)
    start = len(run.prefix) + 1
    names = [entry.key[start:] for entry in store.list(run.prefix)]
    if expected is not None:
        folder = chosen_checkpoints(run, names)["best"]
        named["pull"] = store.read_json(run.key(folder, PROOF_FILE))["epoch"]
    values = {record["epoch"]: record[metric] for record in history}
    seen = Seen(run.status(), "running", None, datetime.now(UTC))
    samples = run_samples(run.id, seen)
    shown = [sample.value for sample in samples if sample.name == "cifarray_run_best"]
    named["exporter"] = expected if shown == ([values[expected]] if expected else []) else shown
    trial = TrialRecord("a", {}, history, "finished")
    reported = Trial.from_mapping(trial.as_dict()).best(metric)
    named["report"] = reported and reported.epoch
    named["sweep"] = expected if trial.best(metric) == values.get(expected) else trial.best(metric)
    assert set(named.values()) == {expected}, named


def test_an_epoch_whose_training_diverged_is_never_the_best():
    good = {"epoch": 1, "validation.top1": 0.5, TRAIN_LOSS: 1.0}
    for loss in (math.nan, math.inf, None):
        diverged = {"epoch": 2, "validation.top1": 0.9, TRAIN_LOSS: loss}
        assert best_epoch([good, diverged], "validation.top1") == good
        assert best_epoch([diverged], "validation.top1") is None


def test_of_trials_that_are_equally_good_the_first_is_the_best():
    record = {"epoch": 1, "validation.top1": 0.5}
    trials = [TrialRecord(name, {}, [record], "finished") for name in ("a", "b")]
    assert best_trial(trials, "validation.top1") is trials[0]
    assert best_trial([TrialRecord("a", {}, [], "failed")], "validation.top1") is None


def test_early_stopping_counts_from_the_best_epoch():
    history = [{"epoch": n, "validation.top1": v} for n, v in enumerate((0.5, 0.7, 0.7, 0.6), 1)]
    rule = EarlyStoppingSpec(metric="validation.top1", patience_epochs=2)
    assert not should_stop(history[:3], rule)
    assert should_stop(history, rule), "a later equal value is no better one"
