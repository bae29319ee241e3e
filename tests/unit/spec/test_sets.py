"""`--set a.b=c` takes the type of its field, and what does not fit is refused."""

from pathlib import Path
from typing import Any

import pytest

from cifarray.errors import JobError
from cifarray.spec.load import load_job, read_field


def field(*sets: str, path: str, job: str = "tune-digits") -> Any:
    """The value at a path after some --set."""
    return read_field(load_job(job, sets), path)


def refused(match: str, *sets: str, job: str = "tune-digits") -> None:
    """The job with these --set is refused in one sentence."""
    with pytest.raises(JobError, match=match) as caught:
        load_job(job, sets)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("item", "path", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        ("optimizer.lr=1.5E-3", "optimizer.lr", 1.5e-3),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("optimizer.weight_decay=5e-4", "optimizer.weight_decay", 5e-4),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
        ("optimizer.weight_decay=null", "optimizer.weight_decay", None),
        ("description=no: 1e-3 things", "description", "no: 1e-3 things"),
        ("description=", "description", ""),
        ("description=2024", "description", "2024"),
        ("name=2026-11-23", "name", "2026-11-23"),
        ("optimizer.name=1e3", "optimizer.name", "1e3"),
        ("description=a=b", "description", "a=b"),
        ("model.dropout=null", "model.dropout", None),
        ("model.dropouts=[0.1, 0, 0.3]", "model.dropouts", (0.1, 0.0, 0.3)),
        ("model.name=my.package:net", "model.name", "my.package:net"),
        ("model.args.width=64", "model.args", {"width": 64}),
        ("model.args={width: 64, deep: {er: 1}}", "model.args", {"width": 64, "deep": {"er": 1}}),
        ("augment.horizontal_flip.p=0.25", "augment.horizontal_flip.p", 0.25),
        ("augment.padded_crop=null", "augment.padded_crop", None),
        ("augment.preset=complex", "augment.zoom.fraction", 0.2),
        ("train.early_stopping.patience_epochs=2", "train.early_stopping.patience_epochs", 2),
        ("sweep.trials=4", "sweep.trials", 4),
        ("sweep.scheduler.grace_epochs=1", "sweep.scheduler.grace_epochs", 1),
        ("sweep.time_budget_s=1e2", "sweep.time_budget_s", 100.0),
        ("dataset.rows=500", "dataset.rows", 500),
    ],
)
def test_a_set_takes_the_fields_own_type(item: str, path: str, value: Any):
    found = field(item, path=path)
    assert found == value
    assert type(found) is type(value)


def test_the_last_set_of_a_field_wins():
    assert field("train.epochs=3", "train.epochs=4", path="train.epochs") == 4


def test_a_set_leaves_the_neighboring_fields_alone():
    assert field("train.epochs=3", path="train.global_batch_size") == 64


def test_a_set_reaches_into_the_space_of_a_sweep():
    sets = (
        "sweep.space.optimizer.lr.loguniform=[1e-3, 1e-2]",
        "sweep.space.optimizer.name.choice=[sgd]",
        "sweep.space.train.global_batch_size.randint=[32, 65]",
    )
    space = read_field(load_job("tune-digits", sets), "sweep.space")
    assert space["optimizer.lr"].loguniform == (1e-3, 1e-2)
    assert space["optimizer.name"].choice == ("sgd",)
    assert space["train.global_batch_size"].randint == (32, 65)
    assert space["model.dropout"].uniform == (0.0, 0.7)


@pytest.mark.parametrize(
    ("item", "field_path"),
    [
        ("sweep.space.optimizer.lr={uniform: [1e-4, 1e-1]}", "optimizer.lr"),
        ("sweep.space.seed={uniform: [1e-4, 1e-1]}", "seed"),
        ("sweep.space.model.args.width={uniform: [1e-4, 1e-1]}", "model.args.width"),
    ],
)
def test_a_set_may_give_a_fields_whole_domain(item: str, field_path: str):
    assert field(item, path="sweep.space")[field_path].uniform == (1e-4, 1e-1)


def test_a_set_may_give_a_domain_of_mappings():
    space = field("sweep.space.model.args={choice: [{width: 1}, {width: 2}]}", path="sweep.space")
    assert space["model.args"].choice == ({"width": 1}, {"width": 2})


def test_a_sweep_that_is_off_can_be_given_a_space():
    space = field("sweep=null", "sweep.space.seed.choice=[1]", path="sweep.space")
    assert list(space) == ["seed"]


@pytest.mark.parametrize("kind", ["choice", "grid"])
def test_numbers_among_choices_are_numbers(kind: str, tmp_path: Path):
    typed = field(f"sweep.space.optimizer.lr.{kind}=[1e-3, .5e-2, 1, 1e3x]", path="sweep.space")
    path = tmp_path / "job.yaml"
    path.write_text(
        "kind: tune\ndataset: {name: digits}\nmodel: {name: cnn3}\ntrain: {steps: 3}\n"
        f"sweep: {{space: {{optimizer.lr: {{{kind}: [1e-3, .5e-2, 1, 1e3x]}}}}}}\n"
    )
    written = field(path="sweep.space", job=str(path))
    for space in (typed, written):
        assert getattr(space["optimizer.lr"], kind) == (1e-3, 5e-3, 1, "1e3x")


def test_a_set_of_another_kind_takes_the_place_of_a_fields_domain():
    space = field("sweep.space.optimizer.lr.choice=[0.1, 0.2]", path="sweep.space")
    assert space["optimizer.lr"].choice == (0.1, 0.2)
    assert space["optimizer.lr"].loguniform is None


def test_a_set_can_replace_the_whole_space():
    space = field("sweep.space={optimizer.lr: {grid: [1, 2]}}", path="sweep.space")
    assert list(space) == ["optimizer.lr"]


@pytest.mark.parametrize(
    ("item", "neighbors"),
    [
        ("train.epoch=3", r"did you mean train\.epochs"),
        ("optimiser.lr=3", r"did you mean .*optimizer\.lr"),
        ("lr=0.1", r"did you mean .*optimizer\.lr\?"),
        ("momentum=0.1", r"did you mean .*optimizer\.momentum"),
        ("train.epochs.max=3", r"did you mean .*train\.epochs"),
        ("zzz=1", r"choose from: augment\.brightness\.fraction, .*validation\.seed"),
    ],
)
def test_an_unknown_field_names_its_nearest_neighbors(item: str, neighbors: str):
    refused(f"unknown field '{item.partition('=')[0]}'; {neighbors}", item)


@pytest.mark.parametrize("item", ["train.epochs", "=3", ""])
def test_what_is_no_assignment_is_refused(item: str):
    refused(r"--set .*is not of the form field=value, as in train\.epochs=3", item)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("train.epochs=many", r"train\.epochs: input should be a valid integer.*\(given 'many'\)"),
        (
            "train.epochs=0",
            r"train\.epochs: input should be greater than or equal to 1 \(given 0\)",
        ),
        ("train.epochs=1.5", r"train\.epochs: .*integer.* \(given 1\.5\)"),
        ("optimizer.lr=-1", r"optimizer\.lr: input should be greater than 0 \(given -1\)"),
        ("optimizer.lr=inf", r"optimizer\.lr: input should be a finite number"),
        ("optimizer.lr=.nan", r"optimizer\.lr: input should be a finite number"),
        ("sweep.space.optimizer.lr.uniform=[1, .inf]", r"uniform\.1: .* finite number"),
        ("optimizer.lr=fast", r"optimizer\.lr: .*number.*\(given 'fast'\)"),
        ("optimizer.lr=[1]", r"optimizer\.lr: .*number.*\(given \[1\]\)"),
        ("optimizer.nesterov=perhaps", r"optimizer\.nesterov: .*boolean.*\(given 'perhaps'\)"),
        ("kind=both", r"kind: input should be 'train' or 'tune' \(given 'both'\)"),
        ("train.precision=fp8", r"precision: input should be 'fp32' or 'bf16' \(given 'fp8'\)"),
        ("preprocess.normalize=l2", r"'standardize', 'unit' or 'none' \(given 'l2'\)"),
        ("validation.fraction=1", r"validation\.fraction: .*less than 1 \(given 1\)"),
        ("model.dropout=1", r"model\.dropout: input should be less than 1 \(given 1\)"),
        (
            "model.dropouts=[0.5, 1, 0]",
            r"model: dropouts must be rates from 0 up to 1, not \[0\.5, 1",
        ),
        ("sweep.trials=0", r"sweep\.trials: .*greater than or equal to 1 \(given 0\)"),
        ("sweep.search=luck", r"'random', 'grid', 'optuna' or 'cases' \(given 'luck'\)"),
        ("sweep.scheduler.name=hyper", r"'asha', 'median' or 'none' \(given 'hyper'\)"),
        (
            "sweep.space={}",
            r"sweep: search random requires a space of at least 1 item, and no cases",
        ),
        ("sweep.space.optimizer.lr.uniform=[2, 1]", r"requires \[low, high\] with low < high"),
        ("sweep.space.optimizer.lr.normal=[2, 1]", r"unknown field '.*normal'"),
        ("sweep=null", "a job of kind tune has a sweep, and one of kind train has none"),
        ("kind=train", "a job of kind tune has a sweep, and one of kind train has none"),
        ("train=3", r"train: .*\(given 3\)"),
        ("train.epochs=null", "give epochs or steps"),
        ("train.epochs={a: [", r"'{a: \[' is not a YAML value"),
        ("train.epochs=2026-99-99", "is not a YAML value: month must be in 1..12"),
        ("train.epochs=", r"--set train\.epochs= has no value; write train\.epochs=null"),
        ("train.epochs=true", r"train\.epochs: input should be a number \(given True\)"),
        ("optimizer.lr=true", r"optimizer\.lr: input should be a number \(given True\)"),
        ("schedule.warmup_epochs=1e308", r"less than or equal to 1000000000 \(given 1e\+308\)"),
        ("train.histograms.every_epochs=0", r"greater than or equal to 1 \(given 0\)"),
        ("train.histograms.every=2", r"unknown field 'train\.histograms\.every'"),
        ("schedule.every_epochs=1e308", r"less than or equal to 1000000000 \(given 1e\+308\)"),
        (f"train.steps={10**30}", "less than or equal to 1000000000"),
        ("model.args={a: &a [*a]}", "is not a YAML value: an alias contains itself"),
        (f"model.args={'[' * 300}{']' * 300}", "is nested more than 100 levels deep"),
        (f"model.args={'[' * 9000}", "is nested too deeply"),
        (f"train.epochs={list(range(1000))}", r"\(given \[0, 1, .{180,199}\.\.\.\)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_is_allowed(item: str, sentence: str):
    refused(sentence, item)


def test_several_wrong_values_are_all_named():
    refused(r"train\.epochs: .*; train\.precision: .*", "train.epochs=0", "train.precision=fp8")
