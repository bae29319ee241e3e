"""Runs side by side: differences of their jobs, and mean and spread over seeds."""

import copy
import json
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from cifarray.report.compare import compare
from tests.unit.report.conftest import Written


def changed(report: Mapping[str, Any], run_id: str, **fields: Any) -> dict[str, Any]:
    """Return a copy with other values at dotted paths; `__` stands for a dot."""
    copied = copy.deepcopy(dict(report)) | {"run_id": run_id}
    for path, value in fields.items():
        *way, last = path.split("__")
        record = copied
        for part in way:
            record = record[part]
        record[last] = value
    return copied


def seeded(report: Mapping[str, Any], seed: int, top1: float) -> dict[str, Any]:
    """Return the report that the same job would give with another seed."""
    return changed(report, f"run-{seed}", seeds__job=seed, resolved_job__seed=seed, test__top1=top1)


def test_runs_of_one_job_with_several_seeds_give_mean_deviation_and_n(trained: Written):
    values = [0.951, 0.962, 0.948, 0.957]
    reports = [seeded(trained.content, seed, top1) for seed, top1 in enumerate(values)]
    (group,) = compare(reports).groups
    spread = group.figures["test.top1"]
    assert group.seeds == (0, 1, 2, 3)
    assert spread.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert spread.std == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert spread.n == 4
    assert spread.std == pytest.approx(statistics.stdev(values))


def test_a_seed_that_is_there_twice_counts_once(trained: Written):
    reports = [seeded(trained.content, seed, 0.9 + seed / 100) for seed in (0, 1)]
    again = changed(reports[1], "again")
    comparison = compare([*reports, again])
    assert comparison.groups[0].figures["test.top1"].n == 2
    assert "again repeats seed 1 of run-1 and is left out of the mean" in comparison.notes


@pytest.mark.parametrize(
    "other",
    [
        {"resolved_job__optimizer__lr": 0.1},
        {"dataset__digest": "ff" * 32},
        {"world_size": 4},
        {"code": {"sha256": "ab" * 32}},
        {"weights": {"sha256": "ab" * 32}},
        {"resolved_job__validation__seed": 3},
    ],
)
def test_what_differs_in_more_than_its_seed_is_no_group(trained: Written, other: dict[str, Any]):
    reports = [
        seeded(trained.content, 0, 0.9),
        changed(seeded(trained.content, 1, 0.9), "other", **other),
    ]
    assert compare(reports).groups == ()


def test_one_run_alone_is_no_group(trained: Written, swept: Written):
    assert compare([trained.content, swept.content]).groups == ()


def test_the_fields_in_which_jobs_differ_are_shown_and_no_others(trained: Written):
    other = changed(
        trained.content, "other", resolved_job__optimizer__lr=0.1, resolved_job__description="x"
    )
    runs = compare([trained.content, other]).runs
    assert [run.fields for run in runs] == [{"optimizer.lr": 0.05}, {"optimizer.lr": 0.1}]


def test_a_record_that_is_off_in_one_job_differs_field_by_field(trained: Written):
    flip = {"p": 0.5}
    other = changed(trained.content, "other", resolved_job__augment__horizontal_flip=flip)
    runs = compare([trained.content, other]).runs
    assert runs[0].fields == {"augment.horizontal_flip.p": None}
    assert runs[1].fields == {"augment.horizontal_flip.p": 0.5}


def test_a_sweep_stands_with_the_fields_of_its_best_trial(trained: Written, swept: Written):
    best_id = swept.content["best_trial_id"]
    best = next(trial for trial in swept.content["trials"] if trial["id"] == best_id)
    runs = compare([trained.content, swept.content]).runs
    assert runs[1].fields["optimizer.lr"] == best["parameters"]["optimizer.lr"]
    assert not [field for field in runs[1].fields if field.startswith("sweep")]


def test_a_version_that_one_report_does_not_know_is_no_other_version(trained: Written):
    versions = {**trained.content["versions"], "timm": "1.0.31"}
    notes = compare([trained.content, changed(trained.content, "other", versions=versions)]).notes
    assert not any("versions" in note for note in notes)


def test_different_datasets_versions_and_hardware_are_said(trained: Written):
    other = changed(
        trained.content, "other",
        dataset__digest="ff" * 32, versions__torch="2.14.0", hardware__cpu="another",
    )  # fmt: skip
    first, second, third = compare([trained.content, other]).notes
    assert first.startswith("the runs were measured on different datasets (digits 3f1c3f1c3f1c, ")
    assert second == "the runs used different versions of torch"
    assert third.startswith("the runs had different hardware")
    assert compare([trained.content, trained.content | {"run_id": "b"}]).notes[:-1] == ()


def test_a_figure_that_is_missing_leaves_the_mean(trained: Written):
    reports = [seeded(trained.content, seed, 0.9) for seed in range(3)]
    reports[2]["train"]["images_per_s"] = None
    assert compare(reports).groups[0].figures["train.images_per_s"].n == 2


def test_a_comparison_is_json(trained: Written, swept: Written):
    written = json.loads(json.dumps(compare([trained.content, swept.content]).to_json()))
    assert [run["run_id"] for run in written["runs"]] == [
        trained.content["run_id"],
        swept.content["run_id"],
    ]


def test_runs_that_learned_different_classes_are_said_to_be_incomparable(trained: Written):
    some = changed(trained.content, "some", dataset__selection__classes=["3", "8"])
    others = changed(trained.content, "others", dataset__selection__classes=["1", "7"])
    assert any("different classes" in note for note in compare([some, others]).notes)
    older = changed(trained.content, "older")
    del older["dataset"]["selection"]
    assert not any("classes" in note for note in compare([trained.content, older]).notes)
