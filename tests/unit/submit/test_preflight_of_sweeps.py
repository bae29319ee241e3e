"""A sweep that no trial could carry out is refused before any node starts."""

from typing import Any

import pytest

from cifarray.submit.preflight import NOT_SWEEPABLE, check
from tests.unit.submit.refusals import LR, profile, refused, sweep

NAMES = {"optimizer.name": {"choice": ["sgd", "adam", "rmsprop"]}}


@pytest.mark.parametrize("path", NOT_SWEEPABLE)
def test_what_makes_trials_incomparable_cannot_be_swept(path: str):
    below = {"dataset": "dataset.rows", "validation": "validation.seed", "sweep": "sweep.seed"}
    space = {below.get(path, path): {"choice": ["a"]}}
    refused(sweep(space), rf"{below.get(path, path)} cannot be swept: {NOT_SWEEPABLE[path]}")


def test_an_unknown_field_of_a_space_names_its_neighbours():
    space = {"optimizer.learning_rate": {"choice": [1]}}
    refused(sweep(space), r"unknown field 'optimizer\.learning_rate'; did you mean optimizer\.")


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"optimizer.lr": {"choice": [0.1, -0.1]}}, r"optimizer\.lr: .*greater than 0.*-0\.1"),
        ({"optimizer.lr": {"uniform": [0.0, 0.1]}}, r"optimizer\.lr: .*greater than 0 \(given 0"),
        ({"model.dropout": {"uniform": [0.0, 1.0]}}, r"model\.dropout: .*less than 1"),
        ({"train.epochs": {"randint": [0, 5]}}, r"train\.epochs: .*greater than or equal to 1"),
        ({"train.precision": {"choice": ["fp32", "fp16"]}}, r"'fp32' or 'bf16' \(given 'fp16'\)"),
        ({"optimizer.name": {"choice": ["sgd", "adan"]}}, "unknown optimizer 'adan'; .*mean adam"),
        ({"model.name": {"choice": ["cnn3", "cnn4"]}}, "unknown model 'cnn4'"),
        ({"schedule.name": {"choice": ["cosine", "step"]}}, r"step wants schedule\.every_epochs"),
        (
            {"train.global_batch_size": {"choice": [32, 1]}},
            r"train\.global_batch_size 1 is below the 2 workers",
        ),
    ],
)
def test_every_value_that_a_sweep_may_try_is_checked(space: dict[str, Any], sentence: str):
    refused(sweep(space, sweep={"workers_per_trial": 2}), sentence)


def test_a_bad_value_beside_other_names_is_found():
    space = {**NAMES, "optimizer.momentum": {"choice": [0.9, 1.5]}}
    refused(sweep(space), r"optimizer\.momentum: .*less than 1 \(given 1\.5\)")


@pytest.mark.parametrize(
    "space",
    [
        NAMES,
        {**NAMES, "optimizer.momentum": {"uniform": [0.5, 0.99]}},
        {**NAMES, "optimizer.beta1": {"choice": [0.8, 0.9]}},
        {"model.name": {"choice": ["cnn3", "resnet18"]}, "model.dropout": {"uniform": [0, 0.7]}},
        {"schedule.name": {"choice": ["constant", "cosine"]}},
    ],
)
def test_a_field_that_some_trials_use_may_be_set_or_swept(space: dict[str, Any]):
    check(sweep(space), profile())  # the small job sets a momentum, which adam does not use


@pytest.mark.parametrize(
    ("space", "field"),
    [
        ({"optimizer.name": {"choice": ["adam", "adamw"]}}, r"optimizer\.momentum"),
        ({**LR, "optimizer.beta1": {"choice": [0.8, 0.9]}}, r"optimizer\.beta1"),
        ({"model.args.width": {"choice": [3, 4]}}, r"model\.args"),
        ({"schedule.gamma": {"choice": [0.5]}}, r"schedule\.gamma"),
    ],
)
def test_a_field_that_no_trial_could_use_is_refused(space: dict[str, Any], field: str):
    refused(sweep(space), f"{field}: neither|no trial uses {field}|does not use {field}")


@pytest.mark.parametrize(
    ("kind", "search", "sentence"),
    [
        ("choice", "grid", "grid wants at least one field of kind grid"),
        ("grid", "random", "random takes no grid field; use choice, or search=grid"),
        ("grid", "optuna", "optuna takes no grid field"),
    ],
)
def test_a_search_and_its_domains_have_to_agree(kind: str, search: str, sentence: str):
    refused(sweep({"optimizer.lr": {kind: [0.1, 0.2]}}, sweep={"search": search}), sentence)


def test_asha_has_to_know_the_most_epochs_of_a_trial():
    steps_alone = {"epochs": None, "steps": 40}
    refused(sweep(train=steps_alone), r"asha has to know the most epochs of a trial; set train\.ep")
    check(sweep(train=steps_alone, sweep={"scheduler": {"name": "none"}}), profile())
