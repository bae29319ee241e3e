"""A sweep that no trial could carry out is refused before any node starts."""

from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.checks import NOT_SWEEPABLE, candidates, check, select
from cifarray.errors import JobError
from tests.digit_sessions import Digits, small_job
from tests.unit.backends.refusals import LR, profile, refused, sweep

NAMES = {"optimizer.name": {"choice": ["sgd", "adam", "rmsprop"]}}


@pytest.mark.parametrize("path", NOT_SWEEPABLE)
def test_what_makes_trials_incomparable_cannot_be_swept(path: str):
    below = {"dataset": "dataset.rows", "validation": "validation.seed", "sweep": "sweep.seed"}
    space = {below.get(path, path): {"choice": ["a"]}}
    refused(sweep(space), rf"{below.get(path, path)} cannot be swept: {NOT_SWEEPABLE[path]}")


def test_an_unknown_field_of_a_space_names_its_neighbors():
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
        (
            {"schedule.name": {"choice": ["cosine", "step"]}},
            r"step requires schedule\.every_epochs",
        ),
        (
            {"train.global_batch_size": {"choice": [32, 1]}},
            r"train\.global_batch_size 1 is less than the 2 workers",
        ),
    ],
)
def test_every_value_that_a_sweep_may_try_is_checked(space: dict[str, Any], sentence: str):
    refused(sweep(space, sweep={"workers_per_trial": 2}), sentence)


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ({"dataset.rows": 10}, "dataset.rows cannot be swept: trials on different rows"),
        ({"optimizer.learning_rate": 1}, r"unknown field 'optimizer\.learning_rate'; did you mean"),
        ({"optimizer.lr": -1}, r"optimizer\.lr: .*greater than 0 \(given -1\)"),
        ({"optimizer.name": "adan"}, "unknown optimizer 'adan'"),
        ({"optimizer.beta1": 0.9}, r"sweep\.cases\.1 sets optimizer\.beta1, which its"),
    ],
)
def test_every_case_is_checked(case: dict[str, Any], sentence: str):
    cases = [{"optimizer.lr": 0.1}, case]
    refused(sweep(sweep={"search": "cases", "cases": cases, "space": {}}), sentence)


def test_a_record_and_a_field_within_it_cannot_both_be_swept():
    cases = [{"augment.horizontal_flip": None}, {"augment.horizontal_flip.p": 0.9}]
    given = {"search": "cases", "cases": cases, "space": {}}
    refused(sweep(sweep=given), r"augment\.horizontal_flip and augment\.horizontal_flip\.p, which")
    space = {"augment.zoom": {"choice": [None]}, "augment.zoom.fraction": {"uniform": [0.0, 0.2]}}
    refused(sweep(space), r"augment\.zoom and augment\.zoom\.fraction, which")


def test_a_case_may_turn_on_what_the_others_leave_off():
    cases = [{"augment.rotation.degrees": 5.0}, {"optimizer.lr": 0.1}]
    job = sweep(sweep={"search": "cases", "cases": cases, "space": {}})
    check(job, profile())
    first, second = candidates(job)
    assert first.augment.rotation is not None
    assert second.augment.rotation is None


def test_cases_that_belong_together_are_allowed():
    cases = [
        {"optimizer.name": "adam", "optimizer.lr": 1e-3},
        {"schedule.name": "inverse_time", "schedule.decay": 0.05},
        {"augment.horizontal_flip": {"p": 0.5}, "train.epochs": 3},
    ]
    check(sweep(sweep={"search": "cases", "cases": cases, "space": {}}), profile())


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
        {
            "preprocess.normalize": {"choice": ["unit", "whitening"]},
            "preprocess.epsilon": {"loguniform": [1e-6, 1e-1]},
        },
        {
            "augment.zoom": {"choice": [None, {"fraction": 0.2}]},
            "augment.fill": {"choice": ["nearest", "zeros"]},
        },
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
        ({"preprocess.epsilon": {"choice": [0.5]}}, r"preprocess\.epsilon"),
        ({"augment.fill": {"choice": ["zeros"]}}, r"augment\.fill"),
    ],
)
def test_a_field_that_no_trial_could_use_is_refused(space: dict[str, Any], field: str):
    refused(sweep(space), f"{field}: neither|no trial uses {field}|does not use {field}")


@pytest.mark.parametrize(
    ("kind", "search", "sentence"),
    [
        ("choice", "grid", "grid requires at least one field of kind grid"),
        ("grid", "random", "random takes no grid field; use choice, or search=grid"),
        ("grid", "optuna", "optuna takes no grid field"),
    ],
)
def test_a_search_and_its_domains_have_to_agree(kind: str, search: str, sentence: str):
    refused(sweep({"optimizer.lr": {kind: [0.1, 0.2]}}, sweep={"search": search}), sentence)


def test_asha_has_to_know_the_most_epochs_of_a_trial():
    steps_alone = {"epochs": None, "steps": 40}
    refused(
        sweep(train=steps_alone),
        r"asha requires the maximum number of epochs of a trial; set train\.ep",
    )
    check(sweep(train=steps_alone, sweep={"scheduler": {"name": "none"}}), profile())


@pytest.mark.parametrize("kind", ["uniform", "loguniform"])
@pytest.mark.parametrize("path", ["train.epochs", "schedule.warmup_steps", "optimizer.nesterov"])
def test_a_field_without_fractions_is_not_drawn_from_a_range_of_them(path: str, kind: str):
    sentence = rf"{path} takes whole numbers, and {kind} draws fractions; use randint or choice"
    refused(sweep({path: {kind: [1, 5]}}), sentence)
    if path == "train.epochs":
        check(sweep({path: {"randint": [3, 5]}}), profile())


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            {
                "optimizer.momentum": {"choice": [0.9, 0.0]},
                "optimizer.nesterov": {"choice": [False, True]},
            },
            r"optimizer\.nesterov requires a momentum above 0, not 0\.0",
        ),
        (
            {
                "optimizer.nesterov": {"choice": [False, True]},
                "optimizer.momentum": {"uniform": [0.0, 0.9]},
            },
            r"optimizer\.nesterov requires a momentum above 0, not 0\.0",
        ),
        (
            {
                "schedule.warmup_epochs": {"choice": [None, 1]},
                "schedule.warmup_steps": {"choice": [None, 1]},
            },
            "give warmup_epochs or warmup_steps, not both",
        ),
        (
            {
                "model.dropout": {"choice": [None, 0.1]},
                "model.dropouts": {"choice": [None, [0.1, 0.1, 0.1]]},
            },
            "give dropout .* or dropouts .*, not both",
        ),
        (
            {"train.epochs": {"choice": [3, None]}, "train.steps": {"choice": [9, None]}},
            "give epochs or steps",
        ),
        (
            {"preprocess.normalize": {"choice": ["unit", "whitening"]}},
            r"whitening requires preprocess\.epsilon",
        ),
        (
            {"augment.mixup": {"choice": [None, {}]}, "augment.cutmix": {"choice": [None, {}]}},
            "give mixup or cutmix, not both",
        ),
    ],
)
def test_values_that_fit_alone_and_not_together_are_found(space: dict[str, Any], sentence: str):
    refused(sweep(space, sweep={"scheduler": {"name": "none"}}), sentence)


def test_a_longer_warm_up_than_the_shortest_trial_is_found_against_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
):
    digits = Digits.prepared_in(tmp_path_factory.mktemp("digits"))
    space = {
        "schedule.warmup_epochs": {"choice": [0, 4]},
        "train.epochs": {"choice": [9, 3]},
    }
    job = sweep(space)
    with pytest.raises(JobError, match="the schedule's warm-up takes 8 steps, but the training"):
        select(digits.store, digits.manifest, job, 1)


def test_a_space_of_too_many_combinations_still_has_every_value_tried():
    values = [0.01 * number for number in range(1, 40)]
    space = {f"optimizer.{name}": {"choice": values} for name in ("lr", "weight_decay", "momentum")}
    check(sweep(space), profile())
    bad = {**space, "optimizer.momentum": {"choice": [*values, 1.5]}}
    refused(sweep(bad), r"optimizer\.momentum: .*less than 1 \(given 1\.5\)")


def test_a_seed_that_optuna_does_not_take_is_refused():
    too_large = {"seed": 2**32, "search": "optuna"}
    refused(sweep(sweep=too_large), "sweep.seed 4294967296 is too large for optuna; give one below")
    check(sweep(sweep={**too_large, "seed": 2**32 - 1}), profile())
    check(sweep(sweep={**too_large, "search": "random"}), profile())


def test_a_crop_that_may_leave_nothing_of_an_image_is_refused():
    sentence = r"padded_crop\.padding 8 could remove a whole image of 8x8 pixels; .* most 7"
    refused(small_job(augment={"padded_crop": {"padding": 8}}), sentence)
    refused(sweep({"augment.padded_crop.padding": {"randint": [1, 9]}}), sentence)
    check(sweep({"augment.padded_crop.padding": {"randint": [1, 8]}}), profile())


def test_code_for_a_network_that_needs_none_is_refused(tmp_path: Path):
    (tmp_path / "net_of_sweeps.py").write_text("def small(**options): ...\n")
    refused(small_job(), "the network cnn3 needs no code; leave --code out", code=tmp_path)
    own = sweep({"model.name": {"choice": ["cnn3", "net_of_sweeps:small"]}})
    check(own, profile(), code=tmp_path)
