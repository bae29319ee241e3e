"""`--dry-run`, `--seeds`, `--set` and `--best-of`: what would run, before anything does."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from cifarray.cli.submit import record, resolve
from cifarray.errors import JobError, StoreError
from cifarray.models.registry import build_model
from cifarray.runs import Run
from cifarray.spec.job import ModelSpec
from cifarray.store import Store
from tests.unit.cli.conftest import Type


def test_a_dry_run_prints_the_resolved_job_and_leaves_nothing(
    typed: Type, cifarray_home: Path
) -> None:
    shown = typed("submit", "tune-digits", "--dry-run", "--set", "sweep.trials=4")
    assert shown.code == 0
    job = yaml.safe_load(shown.out)
    assert job["name"] == "tune-digits"
    assert job["sweep"]["trials"] == 4
    assert "digits is not in" in shown.err
    assert not (cifarray_home / "store").exists()
    assert not (cifarray_home / "state" / "node.json").exists()


def test_a_dry_run_can_be_read_by_a_program(typed: Type) -> None:
    job = json.loads(typed("run", "train-digits", "--dry-run", "--json", "-q").out)
    assert job["model"]["name"] == "cnn3"


def test_a_dry_run_of_several_seeds_shows_each(typed: Type) -> None:
    shown = typed("submit", "train-digits", "--dry-run", "--seeds", "3", "--set", "seed=5")
    jobs = list(yaml.safe_load_all(shown.out))
    assert [job["seed"] for job in jobs] == [5, 6, 7]


def test_a_prepared_dataset_is_held_against_the_job(typed: Type) -> None:
    assert typed("data", "prepare", "digits").code == 0
    words = ("submit", "train-digits", "--dry-run", "--set")
    assert typed(*words, "train.global_batch_size=1000").code == 0
    refused = typed(*words, "train.global_batch_size=1200")
    assert refused.code == 2
    assert "more than the 1150 training rows" in refused.err


def test_weights_are_held_against_the_network_by_a_dry_run_and_a_submission(
    typed: Type, tmp_path: Path
) -> None:
    assert typed("data", "prepare", "digits").code == 0
    torch.manual_seed(0)
    given = build_model(ModelSpec(name="timm/test_resnet"), 7, (8, 8, 1)).state_dict()
    torch.save(given, tmp_path / "seven.pt")
    words = ["submit", "train-digits", "--dry-run", "--set", "augment.padded_crop=null"]
    words += ["--set", f"model.weights={tmp_path}/seven.pt", "--set"]
    assert typed(*words, "model.name=timm/test_resnet").code == 0
    refused = typed(*words, "model.name=timm/test_efficientnet")
    assert refused.code == 2
    assert "do not fit network timm/test_efficientnet: missing" in refused.err
    sets = (f"model.weights={tmp_path}/seven.pt", "model.name=timm/test_resnet")
    (run,) = record(*resolve("train-digits", sets))
    weights = run.spec().weights
    assert weights is not None
    assert weights.fresh == ("head.1.weight", "head.1.bias")


def test_a_frozen_backbone_without_weights_is_bad_input(typed: Type) -> None:
    sets = ("--set", "model.name=timm/test_resnet", "--set", "model.frozen=true")
    refused = typed("submit", "train-digits", "--dry-run", *sets)
    assert refused.code == 2
    assert "with model.weights none its backbone would stay random" in refused.err


def test_a_path_to_weights_does_not_travel_in_a_rayjob(typed: Type) -> None:
    sets = ("--set", "model.weights=mine.pt")
    refused = typed("submit", "train-digits", "--dry-run", "--cluster", "kubernetes", *sets)
    assert refused.code == 2
    assert (
        "model.weights mine.pt is a path on this machine, which a RayJob cannot contain"
        in refused.err
    )


def test_each_seed_becomes_a_run_of_its_own(cifarray_home: Path, home_store: Store) -> None:
    runs = record(*resolve("train-digits", seeds=2, name="mine"), prepare=True)
    assert [run.id for run in runs] == ["mine-1", "mine-2"]
    assert [run.spec().job.seed for run in runs] == [0, 1]
    assert all(run.status().state == "pending" for run in runs)
    unnamed = record(*resolve("train-digits"))
    assert unnamed[0].id.startswith("train-digits-")


def test_a_name_that_is_taken_is_refused_before_any_run_is_written(
    typed: Type, home_store: Store
) -> None:
    record(*resolve("train-digits", name="mine-2"), prepare=True)
    for words in (["--dry-run"], []):
        shown = typed("submit", "train-digits", "--name", "mine", "--seeds", "3", *words)
        assert shown.code == 2
        assert "run mine-2 already exists in" in shown.err
        assert "already exists" in shown.err
    assert home_store.folders("runs") == ["mine-2"]


def test_runs_of_a_submission_that_fails_half_way_do_not_stay_pending(home_store: Store) -> None:
    record(*resolve("train-digits", name="first"), prepare=True)
    Path(home_store.path("runs"), "mine-2").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write runs/mine-2"):
        record(*resolve("train-digits", name="mine", seeds=2))
    status = Run(home_store, "mine-1").status()
    assert status.state == "failed"
    assert "the run could not be submitted" in (status.error or "")


def test_a_sweep_whose_trials_asha_cannot_stop_is_remarked_on(typed: Type) -> None:
    words = ("submit", "tune-digits", "--dry-run", "--set")
    assert "asha will not stop any trial early" in typed(*words, "train.epochs=3").err
    assert "asha" not in typed(*words, "train.epochs=4").err


def test_a_store_of_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    _, store = resolve("train-digits", store=str(tmp_path / "other"))
    assert store is not None and store.uri == str(tmp_path / "other")


def test_a_run_that_is_no_sweep_has_no_best_fields(home_store: Store) -> None:
    runs = record(*resolve("train-digits"), prepare=True)
    folder = f"runs/{runs[0].id}/report"
    from cifarray.runs import write_index

    home_store.write_json(f"{folder}/report.json", {"trials": None})
    write_index(home_store, folder)
    with pytest.raises(JobError, match="this run is not a sweep"):
        resolve("train-digits", best_of=runs[0].id)
