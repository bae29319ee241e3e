"""The table of published results holds what runs gave, and the jobs' headers agree with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import KEPT, PAGE, TRIED, Recipe, figures, measured, page, recipes, tried
from cifarray.data.catalog import DATASETS
from cifarray.models.summary import describe_model
from cifarray.spec.job import Job
from cifarray.spec.load import job_names, load_job

JOBS = Path(__file__).parents[2] / "jobs"
RECIPES = recipes()


def kept() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(KEPT.read_text("utf-8"))
    return runs


def run_of(job: Job, **fields: Any) -> dict[str, Any]:
    record = {"recipe": "r", "weights": None, "seed": 0, "test_top1": 0.25, "parameters": 7}
    record |= {"epochs": job.train.epochs, "training_s": 3.0, "threads": 2, "hardware": "a CPU"}
    record |= {"test_rows": 10_000, "dataset_digest": "d"}
    return {**record, "job": job.model_dump(mode="json"), **fields}


def test_the_page_is_what_the_kept_runs_make_of_it():
    assert PAGE.read_text("utf-8") == page(kept())


def test_a_row_without_a_run_says_that_it_was_not_measured():
    rows = page([]).splitlines()[-len(RECIPES) :]
    assert all(" | not measured | " in row for row in rows)
    assert sum("56.02 % test" in row for row in rows) == 1


def test_every_published_recipe_has_a_row():
    published = {
        name
        for name in job_names()
        if "# Published" in (JOBS / f"{name}.yaml").read_text("utf-8")
        and load_job(name).kind == "train"
    }
    assert published <= {recipe.job for recipe in RECIPES}


def test_no_row_is_a_sweep_whose_trials_have_figures_of_their_own():
    assert {job.kind for recipe in RECIPES for job in recipe.jobs()} == {"train"}


def test_a_run_of_a_smaller_budget_says_so_and_gives_way_to_a_whole_one():
    (recipe,) = (r for r in RECIPES if r.name == "optimized-simple")
    whole, small = recipe.jobs()
    assert "instead of" not in row_of(recipe, [run_of(whole)])
    assert "epochs 10 instead of 80" in row_of(recipe, [run_of(small)])
    assert "**25.00 %**" in row_of(recipe, [run_of(small), run_of(whole)])
    assert "instead of" not in row_of(recipe, [run_of(small), run_of(whole)])


def test_a_run_on_a_part_of_the_test_rows_says_so():
    (recipe,) = (r for r in RECIPES if r.name == "lenet25")
    (whole,) = recipe.jobs()
    assert "test rows" not in row_of(recipe, [run_of(whole, test_rows=2_500)])
    assert "375 of 2,500 test rows" in row_of(recipe, [run_of(whole, test_rows=375)])


def test_the_kept_runs_networks_are_those_of_today():
    for run in kept():
        job = Job.model_validate(run["job"])
        entry = DATASETS[job.dataset.name]
        every = entry.classes if job.dataset.labels == "fine" else entry.coarse_classes
        chosen = job.dataset.classes or len(every)
        classes = chosen if isinstance(chosen, int) else len(chosen)
        assert describe_model(job.model, classes)["parameters"]["total"] == run["parameters"]


def test_runs_of_several_seeds_give_a_mean_and_a_standard_deviation():
    runs = [run_of(load_job("train-digits"), seed=n, test_top1=0.1 * n) for n in (1, 2, 3)]
    assert figures(runs)[0] == "**20.00 %** ± 10.00 (n = 3)"


def test_a_run_with_other_fields_is_not_the_recipes():
    job = load_job("train-digits")
    other = load_job("train-digits", ["optimizer.lr=0.1"])
    assert measured([run_of(other)], job) == []
    assert len(measured([run_of(load_job("train-digits", ["seed=5"]))], job)) == 1


@pytest.mark.parametrize(
    "other",
    [{"dataset_digest": "e"}, {"hardware": "a GPU"}, {"threads": 8}],
    ids=lambda d: next(iter(d)),
)
def test_runs_on_other_rows_or_machines_are_not_put_together(other: dict[str, Any]):
    job = load_job("train-digits")
    older, newer = run_of(job, seed=0), [run_of(job, seed=n, **other) for n in (1, 2)]
    assert measured([older, *newer], job) == newer
    assert measured([*newer, older], job) == [older]


def test_a_run_from_other_weights_gives_no_figure():
    (recipe,) = (r for r in RECIPES if r.name == "lenet25")
    row = row_of(recipe, [run_of(recipe.jobs()[0], recipe="lenet25", weights="run:x")])
    assert "not measured" in row
    assert TRIED in row


def row_of(recipe: Recipe, runs: list[dict[str, Any]]) -> str:
    lines = page(runs).splitlines()[-len(RECIPES) :]
    return lines[RECIPES.index(recipe)]


@pytest.mark.parametrize("recipe", [r for r in RECIPES if not r.sets], ids=lambda r: r.name)
def test_a_jobs_header_says_what_its_row_says(recipe: Recipe):
    header = (JOBS / f"{recipe.job}.yaml").read_text("utf-8")
    ours = header[header.index("# Ours") :].partition("\nkind:")[0]
    runs = next(filter(None, (measured(kept(), job) for job in recipe.jobs())), None)
    if runs is None:
        assert "not measured" in ours
        assert (TRIED in " ".join(ours.replace("#", "").split())) == bool(tried(recipe, kept()))
    else:
        assert figures(runs)[0].replace("**", "") in ours
