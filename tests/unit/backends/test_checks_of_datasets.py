"""Classes and archive parts that no dataset has are refused before any node starts."""

from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.checks import check, select
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.manifest import load_manifest
from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.spec.load import load_job, load_profile
from cifarray.store import Store
from tests.digit_sessions import Digits, small_job
from tests.image_archives import folder_files, write_folder
from tests.unit.backends.refusals import profile, refused, sweep


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
        ("1", r"dataset\.classes: at least two classes are required"),
        ("0", r"dataset\.classes: at least two classes are required"),
        ("[cat]", r"dataset\.classes: at least two classes are required"),
        ("[]", r"dataset\.classes: at least two classes are required"),
        ("[cat, dog, cat]", r"dataset\.classes: cat is listed twice"),
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
            "validation: give exactly one of fraction and archive_part",
        ),
        (["validation.fraction=null"], "validation: give exactly one of fraction"),
        (
            ["validation.seed=3", "validation.archive_part=data_batch_2"],
            "validation: archive_part uses no seed: leave seed 3 out",
        ),
        (
            ["dataset.archive_part=data_batch_2", "validation.archive_part=data_batch_2"],
            "archive_part are both data_batch_2; the same rows cannot both train and validate",
        ),
    ],
)
def test_contradictions_are_refused(sets: list[str], sentence: str):
    with pytest.raises(JobError, match=sentence):
        load_job("train-cifar10", sets)


def test_a_subset_trains_no_larger_batch_than_it_has_rows(tmp_path: Path):
    digits = Digits.prepared_in(tmp_path)
    job = small_job(dataset={"classes": [3, 8], "rows": 40}, train={"global_batch_size": 33})
    with pytest.raises(JobError, match="global_batch_size 33 is more than the 32 training rows"):
        select(digits.store, digits.manifest, job, 1)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with images of different sizes under a name of one's own."""
    folder = tmp_path_factory.mktemp("pets")
    store = Store.open(str(folder / "store"))
    images = write_folder(folder / "images", folder_files())
    prepare(store, "my-pets", str(images), how=Ingest("imagefolder"))
    return store


def pets_job(**sections: Any) -> Job:
    own = {"dataset": {"name": "my-pets", "rows": None}, "preprocess": {"resize": 24}}
    return small_job(**{**own, "train": {"global_batch_size": 8}, **sections})


def test_a_dataset_of_ones_own_is_known_by_the_store_alone(pets: Store):
    check(pets_job(), load_profile("local"), store=pets)
    assert len(select(pets, load_manifest(pets, "my-pets"), pets_job(), 1).labels.classes) == 2
    refused(pets_job(), r"unknown dataset 'my-pets'; .*data prepare my-pets --layout imagefolder")


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"dataset": {"name": "my-cats"}}, r"unknown dataset 'my-cats'; choose from: cifar10"),
        ({"dataset": {"name": "../x"}}, r"unknown dataset '\.\./x'; .*prepare NAME --layout"),
        ({"preprocess": {"resize": None}}, r"images of my-pets have different sizes; set prepro"),
        (
            {"dataset": {"name": "my-pets", "classes": ["cat", "cow"]}},
            "dataset my-pets has no fine class 'cow'; choose from: cat, dog",
        ),
        (
            {"dataset": {"name": "my-pets", "archive_part": "half"}},
            "my-pets has no archive part 'half'; choose from: train",
        ),
        (
            {"dataset": {"name": "my-pets", "labels": "coarse"}},
            "dataset my-pets has no coarse labels; those that have: cifar100",
        ),
        (
            {"model": {"name": "lenet25"}, "preprocess": {"resize": 12}},
            "lenet25 takes images of at least 16x16 pixels, not 12x12",
        ),
        (
            {"preprocess": {"resize": 65, "normalize": "whitening", "epsilon": 0.1}},
            "whitening of 65x65x3 images requires a matrix",
        ),
        ({"augment": {"padded_crop": {"padding": 24}}}, r"of 24x24 pixels; give at most 23"),
    ],
)
def test_what_its_manifest_rules_out_is_refused(
    sections: dict[str, Any], sentence: str, pets: Store
):
    with pytest.raises(JobError, match=sentence):
        check(pets_job(**sections), load_profile("local"), store=pets)


def test_birds_want_a_size_before_they_are_prepared():
    birds = {"dataset": {"name": "cub200", "rows": None}}
    refused(small_job(**birds), "the images of cub200 have different sizes; set preprocess.resize")
    check(small_job(**birds, preprocess={"resize": 64}), load_profile("local"))


def test_a_sweep_may_try_several_sizes(pets: Store):
    space = {"preprocess.resize": {"choice": [16, 24]}}
    sweep = {"space": space, "metric": "validation.loss"}
    job = pets_job(kind="tune", sweep=sweep, preprocess={})
    check(job, load_profile("local"), store=pets)
    select(pets, load_manifest(pets, "my-pets"), job, 1)
