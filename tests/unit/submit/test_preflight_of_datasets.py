"""Classes and archive parts that no dataset has are refused before any node starts."""

from pathlib import Path
from typing import Any

import pytest

from cifarray.errors import JobError
from cifarray.spec.load import load_job
from cifarray.submit.preflight import check, select
from tests.digit_sessions import Digits, small_job
from tests.unit.submit.refusals import profile, refused, sweep


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"dataset": {"name": "cifar10", "classes": ["cat", "dgo"]}},
            "cifar10 has no fine class 'dgo'; did you mean dog",
        ),
        (
            {"dataset": {"name": "cifar100", "labels": "coarse", "classes": ["trees", "fishes"]}},
            "cifar100 has no coarse class 'fishes'; did you mean fish",
        ),
        ({"dataset": {"classes": 11}}, "dataset.classes 11 is more than the 10 fine classes"),
        (
            {"dataset": {"name": "cifar10", "archive_part": "batch_1"}},
            "cifar10 has no archive part 'batch_1'; did you mean data_batch_1",
        ),
        (
            {"dataset": {"name": "cifar10"}, "validation": {"archive_part": "test_batch"}},
            "cifar10 has no archive part 'test_batch'; did you mean data_batch_",
        ),
        ({"dataset": {"archive_part": "data_batch_1"}}, "digits has no .* choose from: train"),
    ],
)
def test_what_the_dataset_does_not_have_is_refused(sections: dict[str, Any], sentence: str):
    validation = sections.get("validation", {})
    values = small_job().model_dump(mode="json")
    values["dataset"] |= sections["dataset"]
    values["validation"] = validation
    refused(small_job().model_validate(values), sentence)


@pytest.mark.parametrize("space", ["dataset.classes", "validation.archive_part"])
def test_a_sweep_does_not_vary_what_is_selected(space: str):
    refused(sweep({space: {"choice": [3, 4]}}), f"{space} cannot be swept: trials .* compared")


def test_the_cifar10_recipe_on_single_batches_passes():
    sets = ["dataset.archive_part=data_batch_1", "validation.archive_part=data_batch_2"]
    job = load_job("train-cifar10", sets)
    check(job, profile())
    assert (job.dataset.archive_part, job.validation.fraction) == ("data_batch_1", None)


def test_a_number_and_a_list_of_classes_can_be_set():
    assert load_job("train-cifar100", ["dataset.classes=25"]).dataset.classes == 25
    named = load_job("train-digits", ["dataset.classes=[3, 8, one]"])
    assert named.dataset.classes == ("3", "8", "one")
    refused(named, "digits has no fine class 'one'; choose from: 0, 1, 2,")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("1", r"dataset\.classes: a network tells at least two classes apart; choose more"),
        ("0", r"dataset\.classes: a network tells at least two"),
        ("[cat]", r"dataset\.classes: a network tells at least two"),
        ("[]", r"dataset\.classes: a network tells at least two"),
        ("[cat, dog, cat]", r"dataset\.classes: names cat twice"),
        ("cat", r"dataset\.classes: input should be a list of class names, or how many"),
        ("2.5", r"dataset\.classes: input should be a list of class names, or how many"),
        ("[cat, 2.5]", r"dataset\.classes: input should be a list of class names, or how many"),
        ("true", r"dataset\.classes: input should be a"),
    ],
)
def test_what_is_no_choice_of_classes_is_refused_in_one_sentence(given: str, sentence: str):
    with pytest.raises(JobError, match=sentence) as caught:
        load_job("train-cifar10", [f"dataset.classes={given}"])
    assert str(caught.value).count("dataset.classes") == 1
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (
            ["validation.fraction=0.2", "validation.archive_part=data_batch_2"],
            "validation: give fraction or archive_part .*, not both or none",
        ),
        (["validation.fraction=null"], "validation: give fraction or archive_part"),
        (
            ["validation.seed=3", "validation.archive_part=data_batch_2"],
            "validation: archive_part draws nothing: leave seed 3 out",
        ),
        (
            ["dataset.archive_part=data_batch_2", "validation.archive_part=data_batch_2"],
            "archive_part are both data_batch_2; the rows that train cannot also judge",
        ),
    ],
)
def test_contradictions_are_refused(sets: list[str], sentence: str):
    with pytest.raises(JobError, match=sentence):
        load_job("train-cifar10", sets)


def test_a_subset_trains_no_larger_batch_than_it_has_rows(tmp_path: Path):
    digits = Digits.prepared_in(tmp_path)
    job = small_job(dataset={"classes": [3, 8], "rows": 40}, train={"global_batch_size": 33})
    with pytest.raises(JobError, match="global_batch_size 33 is above the 32 rows"):
        select(digits.store, digits.manifest, job, 1)
