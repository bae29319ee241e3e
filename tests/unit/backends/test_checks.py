"""What job, profile and manifest can tell is refused in one sentence before any node starts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifarray.backends.checks import check, check_rows, check_workers, select, versions
from cifarray.data.catalog import DATASETS
from cifarray.data.split import Selection, learned_labels
from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.spec.load import job_names, load_job, load_profile
from tests.digit_sessions import Digits, small_job
from tests.unit.backends.refusals import profile, refused, sweep


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize("name", job_names())
def test_every_shipped_job_passes(name: str):
    check(load_job(name), load_profile("local"))


def test_the_small_job_and_its_sweep_pass():
    check(small_job(), profile())
    check(sweep(), profile())


def test_a_network_is_judged_by_the_size_that_it_sees():
    lenet = {"model": {"name": "lenet25"}}
    refused(small_job(**lenet), "lenet25 takes images of at least 16x16 pixels, not 8x8; .*resize")
    check(small_job(**lenet, preprocess={"resize": 16}), profile())
    small = small_job(**lenet, preprocess={"resize": 15})
    refused(small, "lenet25 takes images of at least 16x16 pixels, not 15x15")


@pytest.mark.parametrize("side", [7, 1025, 0])
def test_a_size_out_of_bounds_is_refused(side: int):
    with pytest.raises(JobError, match=r"preprocess\.resize: input should be .* (8|1024)"):
        load_job("train-digits", [f"preprocess.resize={side}"])


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"dataset": {"name": "cifar1000"}},
            "unknown dataset 'cifar1000'; choose from: cifar10, cifar100, cub200, digits, "
            "fashion-mnist; did you mean cifar100",
        ),
        (
            {"model": {"name": "resnet81"}},
            r"unknown model 'resnet81'; choose from: alexnet32, .*; did you mean resnet18\?; "
            r"or give timm/<name> for one of timm's, or package\.module:factory",
        ),
        (
            {"optimizer": {"name": "adamv"}},
            "unknown optimizer 'adamv'; choose from: adam, adamw, muon, rmsprop, sgd; did you mean",
        ),
        (
            {"schedule": {"name": "cosin"}},
            "unknown schedule 'cosin'; choose from: constant, cosine, exponential, inverse_time, "
            "onecycle, step; did you mean cosine",
        ),
    ],
)
def test_a_name_in_no_registry_is_refused_with_those_that_are(
    sections: dict[str, Any], sentence: str
):
    refused(small_job(**sections), sentence)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"optimizer": {"name": "adam"}},
            r"optimizer adam does not use optimizer\.momentum; it uses beta1, beta2, eps, lr, wei",
        ),
        ({"optimizer": {"beta1": 0.9}}, r"sgd does not use optimizer\.beta1; it uses lr, momentum"),
        (
            {"optimizer": {"nesterov": True, "momentum": None}},
            r"nesterov requires a momentum above 0, not None; set optimizer\.momentum",
        ),
        (
            {"schedule": {"name": "cosine", "gamma": 0.5}},
            r"schedule cosine does not use schedule\.gamma; it uses final_fraction, warmup",
        ),
        ({"schedule": {"name": "exponential"}}, r"exponential requires schedule\.gamma"),
        (
            {"schedule": {"name": "step"}},
            r"step requires schedule\.every_epochs or schedule\.every_steps",
        ),
        (
            {"model": {"name": "resnet18", "dropouts": [0.1]}},
            r"model resnet18 does not use model\.dropouts; it uses model\.dropout",
        ),
        ({"model": {"args": {"width": 3}}}, r"model cnn3 does not use model\.args; it uses"),
        (
            {"model": {"dropouts": [0.1]}},
            r"must be 3 rates, as in \[0\.1, 0\.25, 0\.5\], not \[0\.1\]",
        ),
    ],
)
def test_a_field_that_nothing_chosen_uses_is_refused(sections: dict[str, Any], sentence: str):
    refused(small_job(**sections), sentence)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"preprocess": {"normalize": "unit", "epsilon": 0.1}},
            r"preprocess\.normalize unit does not use preprocess\.epsilon; leave it out",
        ),
        (
            {"augment": {"fill": "zeros", "padded_crop": {"padding": 1}}},
            r"augment\.fill zeros is for augment\.rotation, shift and zoom",
        ),
        ({"augment": {"cutout": {"size": 8}}}, r"cutout\.size 8 could remove a whole .* most 7"),
    ],
)
def test_what_augmentation_and_preprocessing_leave_unread_or_cannot_do_is_refused(
    sections: dict[str, Any], sentence: str
):
    refused(small_job(**sections), sentence)


def test_whitening_is_refused_where_the_prepared_images_are_too_large(digits: Digits):
    job = small_job(augment={"preset": "whitening"})
    check(job, profile())
    large = digits.manifest.model_copy(update={"shape": (224, 224, 1)})
    with pytest.raises(
        JobError, match="whitening of 224x224x1 images requires a matrix of 50176 x"
    ):
        check_rows(job, large, selection_of(64), 2)


def test_a_network_of_ones_own_has_to_be_there(tmp_path: Path):
    (tmp_path / "net_of_preflight.py").write_text("def small(**options): ...\n")
    job = small_job(model={"name": "net_of_preflight:small", "args": {"width": 3}})
    check(job, profile(), code=tmp_path)
    refused(job, "net_of_preflight", code=None)
    refused(small_job(model={"name": "net_of_preflight:smal"}), "did you mean small", code=tmp_path)
    taken = small_job(model={"name": "net_of_preflight:small", "args": {"num_classes": 3}})
    refused(taken, r"model\.args may not contain num_classes", code=tmp_path)


def test_a_network_is_looked_for_without_running_it(tmp_path: Path):
    (tmp_path / "loud_of_preflight.py").write_text("raise SystemExit(9)\ndef small(): ...\n")
    check(small_job(model={"name": "loud_of_preflight:small"}), profile(), code=tmp_path)
    assert "loud_of_preflight" not in sys.modules


@pytest.mark.parametrize("name", sorted(n for n, e in DATASETS.items() if not e.coarse_classes))
def test_coarse_labels_where_there_are_none_are_refused(name: str):
    sentence = f"dataset {name} has no coarse labels; those that have: cifar100"
    refused(small_job(dataset={"name": name, "labels": "coarse"}), sentence)


def test_coarse_labels_of_cifar100_pass():
    check(small_job(dataset={"name": "cifar100", "labels": "coarse"}), profile())


@pytest.mark.parametrize(
    ("job", "workers", "sentence"),
    [
        (small_job(), 3, "--workers 3 is more than the 2 workers of profile two"),
        (small_job(), 0, "--workers 0 is too few; give 1 to 2"),
        (small_job(), -1, "--workers -1 is too few; give 1 to 2"),
        (sweep(), 3, "--workers 3 is more than the 2 workers of profile two"),
        (
            sweep(sweep={"workers_per_trial": 3}),
            None,
            r"sweep\.workers_per_trial 3 is more than the 2 workers of profile two",
        ),
    ],
)
def test_more_workers_than_the_profile_holds_are_refused(
    job: Job, workers: int | None, sentence: str
):
    refused(job, sentence, workers=workers)


@pytest.mark.parametrize(
    ("job", "workers", "world_size"),
    [
        (small_job(), None, 2),
        (small_job(), 1, 1),
        (sweep(), None, 1),
        (sweep(sweep={"workers_per_trial": 2}), None, 2),
        (sweep(sweep={"workers_per_trial": 2}), 1, 2),
    ],
)
def test_a_training_has_the_profiles_workers_unless_told_otherwise_and_a_trial_its_own(
    job: Job, workers: int | None, world_size: int
):
    assert check_workers(job, profile(), workers) == world_size


def test_a_global_batch_below_the_world_size_is_refused():
    job = small_job(train={"global_batch_size": 3})
    refused(
        job,
        r"train\.global_batch_size 3 is less than the 4 workers that share it; raise it or use "
        r"fewer",
        profile=profile(workers=4),
    )
    check(job, profile(workers=4), workers=3)


@pytest.mark.parametrize(
    "job",
    [
        small_job(train={"early_stopping": {"metric": "validation.top2"}}),
        sweep(sweep={"metric": "validation.top2"}),
        sweep({"train.early_stopping.metric": {"choice": ["validation.top1", "validation.top2"]}}),
    ],
)
def test_a_metric_that_no_epoch_reports_is_refused(job: Job):
    refused(job, r"no epoch reports .*metric 'validation\.top2'; did you mean .*validation\.top1")


def test_sync_batchnorm_is_refused_without_gpus():
    job = small_job(train={"sync_batchnorm": True})
    refused(
        job, r"train\.sync_batchnorm requires GPU workers.*profile two has none: set it to false"
    )
    check(job, profile(gpus_per_worker=1))


def selection_of(rows: int) -> Selection:
    positions = {"train": np.arange(rows), "validation": np.arange(3), "test": np.arange(3)}
    return Selection(
        positions, np.arange(3), learned_labels(small_job().dataset, DATASETS["digits"])
    )


def test_a_global_batch_above_the_train_rows_is_refused(digits: Digits):
    job = small_job(train={"global_batch_size": 65})
    check_rows(job, digits.manifest, selection_of(65), 2)
    with pytest.raises(
        JobError, match=r"global_batch_size 65 is more than the 64 training rows; lower it"
    ):
        select(digits.store, digits.manifest, job, 2)


def test_a_global_batch_that_only_some_trials_have_is_checked_too(digits: Digits):
    job = sweep({"train.global_batch_size": {"choice": [32, 500]}})
    with pytest.raises(JobError, match="global_batch_size 500 is more than the 64 training rows"):
        check_rows(job, digits.manifest, selection_of(64), 2)


@pytest.mark.parametrize(
    ("train", "schedule"),
    [
        ({"epochs": 2}, {"warmup_epochs": 2.5}),
        ({"epochs": 2}, {"warmup_steps": 5}),
        ({"epochs": 2, "steps": 3}, {"warmup_epochs": 2.0}),
        ({"epochs": None, "steps": 3}, {"warmup_steps": 4}),
    ],
)
def test_a_warm_up_that_is_longer_than_the_training_is_refused(
    digits: Digits, train: dict[str, Any], schedule: dict[str, Any]
):
    job = small_job(train=train, schedule=schedule)
    check(job, profile())
    with pytest.raises(JobError, match=r"warm-up takes \d steps, but the training has only [34]"):
        select(digits.store, digits.manifest, job, 1)


def test_coarse_labels_that_the_dataset_was_prepared_without_are_refused(digits: Digits):
    job = small_job(dataset={"labels": "coarse"})
    with pytest.raises(JobError, match="digits was prepared without coarse labels; use fine"):
        check_rows(job, digits.manifest, selection_of(64), 2)


def test_a_split_that_leaves_nothing_is_refused(digits: Digits):
    job = small_job(validation={"fraction": 0.001})
    with pytest.raises(JobError, match=r"validation\.fraction 0\.001 of 80 train rows leaves"):
        select(digits.store, digits.manifest, job, 2)


def test_the_selected_rows_are_those_of_the_job(digits: Digits):
    selection = select(digits.store, digits.manifest, small_job(), 2)
    assert selection.shard_rows("train", 2) == [32, 32]


def test_a_run_records_the_versions_that_its_numbers_depend_on():
    found = versions()
    named = {"python", "cifarray", "torch", "torchvision", "ray", "numpy", "pyarrow"}
    named |= {"timm", "optuna"}
    assert named <= found.keys() <= named | {"commit"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(found.values())


def test_names_are_known_without_torch_and_ray():
    program = (
        "import sys; from cifarray.backends import checks, submit; "
        "from cifarray.spec.load import job_names, load_job, load_profile; "
        "jobs = [load_job(name) for name in job_names()]; "
        "jobs = [job for job in jobs if not job.model.name.startswith('timm/')]; "
        "[checks.check(job, load_profile('local')) for job in jobs]; "
        "print(sorted({'torch', 'torchvision', 'ray', 'sklearn'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.strip() == "[]"
