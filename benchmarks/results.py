"""Run the published recipes and write docs/results.md: their figures next to ours.

    python -m benchmarks.results [--small] [--only NAME ...] [--store URI] [--cluster NAME]
    python -m benchmarks.results --weights URI --only NAME ...
    python -m benchmarks.results --take RUN --only NAME
    python -m benchmarks.results --write

A row whose recipe was measured before, with the same fields, is not run again; `--write` runs none.
`--weights` tests the way of a fine-tune whose published weights cannot be had: one short epoch from
these weights, which gives no figure. `--take` keeps a run that ended after this command did, as one
that was resumed.
Every run is one of `cifarray submit` with one worker and its report is what the table is made from;
docs/results.json keeps that. The datasets have to be in the store (`cifarray data prepare`).
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from cifarray.data.catalog import DATASETS
from cifarray.runs import Run
from cifarray.spec.job import Job
from cifarray.spec.load import load_job
from cifarray.spec.record import Record
from cifarray.store import Store

HERE = Path(__file__).parent
RECIPES = HERE / "recipes.yaml"
KEPT = HERE.parent / "docs" / "results.json"
PAGE = HERE.parent / "docs" / "results.md"
CONDITIONS = ("dataset_digest", "hardware", "threads")
"""What runs must share so that their figures are combined."""

TRIED = "published weights not available; path tested with own weights"


class Recipe(Record):
    """A row of the table."""

    name: str
    system: str
    job: str
    sets: tuple[str, ...] = ()
    published: str = "no figure"
    measured_on: str = "not said"
    """What the published figure was measured on."""
    seeds: int = 1
    small: tuple[str, ...] = ()
    """Further fields for a machine of two cores."""
    skip: str | None = None
    """How long it would take there, where it is left out."""
    path: tuple[str, ...] = ()
    """More fields for a test of a fine-tuning recipe with other weights."""
    note: str = ""

    def fields(self, options: argparse.Namespace) -> list[str]:
        """What is set beside the job's own fields."""
        if options.weights:
            return [*self.sets, *self.path, f"model.weights={options.weights}"]
        return [*self.sets, *(self.small if options.small else ())]

    def jobs(self) -> list[Job]:
        """The whole recipe, and the smaller one where there is one."""
        whole = load_job(self.job, self.sets)
        return [whole, *([load_job(self.job, (*self.sets, *self.small))] if self.small else [])]


def recipes() -> list[Recipe]:
    """Every row, in the table's order."""
    return [Recipe.model_validate(row) for row in yaml.safe_load(RECIPES.read_text("utf-8"))]


def same_recipe(recorded: dict[str, Any], job: Job) -> bool:
    """Whether a run's resolved job is this one, whatever its seed and description."""
    ours = {"seed": 0, "description": ""}
    return Job.model_validate({**recorded, **ours}) == job.model_copy(update=ours)


def measured(kept: list[dict[str, Any]], job: Job) -> list[dict[str, Any]]:
    """The kept runs of a job, one per seed, that had the rows and the machine of its newest."""
    whole = (run for run in kept if not run.get("weights"))
    runs = [run for run in whole if same_recipe(run["job"], job)]
    found = {run["seed"]: run for run in runs if all(run[c] == runs[-1][c] for c in CONDITIONS)}
    return [found[seed] for seed in sorted(found)]


def run_recipe(recipe: Recipe, seed: int, options: argparse.Namespace) -> str:
    """One run, from submission to its report; its id."""
    sets = [*recipe.fields(options), f"seed={seed}"]
    command = [
        str(Path(sys.executable).with_name("cifarray")), "submit", recipe.job, "--json",
        "--store", options.store, "--cluster", options.cluster, "--workers", "1",
    ]  # fmt: skip
    for item in sets:
        command += ["--set", item]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    return str(json.loads(done.stdout)["run_id"])


def kept_of(recipe: Recipe, run_id: str, options: argparse.Namespace) -> dict[str, Any]:
    """What is kept of a run that has ended."""
    run = Run.open(Store.open(options.store), run_id)
    report = run.report()
    return {
        "recipe": recipe.name,
        "weights": options.weights,
        "seed": report["seeds"]["job"],
        "test_top1": report["test"]["top1"],
        "test_rows": report["test"]["rows"],
        "dataset_digest": report["dataset"]["digest"],
        "validation_top1": report["validation"]["top1"],
        "parameters": report["model"]["parameters"],
        "epochs": report["epochs"],
        "best_epoch": report["best_epoch"],
        "training_s": sum(record["epoch_s"] for record in run.metrics()),
        "duration_s": report["duration_s"],
        "hardware": report["hardware"]["gpu"] or report["hardware"]["processor"],
        "cpus": report["hardware"]["cpus"],
        "threads": report["threads"],
        "commit": report["versions"].get("commit"),
        "torch": report["versions"]["torch"],
        "reported_at": report["reported_at"],
        "job": report["resolved_job"],
    }


def cells(recipe: Recipe, kept: list[dict[str, Any]]) -> list[str]:
    """A recipe's line: the whole recipe where it was run, else the smaller one, else neither."""
    published = recipe.published
    if published != "no figure":
        published += " test" if recipe.measured_on == "test" else f" ({recipe.measured_on})"
    system = f"[{recipe.system}](../jobs/{recipe.job}.yaml)"
    for job in recipe.jobs():
        if runs := measured(kept, job):
            said = (budget(recipe.jobs()[0], job, recipe.note), incomplete(runs, job))
            return [system, published, *figures(runs), "; ".join(filter(None, said))]
    if tests := tried(recipe, kept):
        remark = "; ".join(filter(None, (TRIED, incomplete(tests, recipe.jobs()[0]))))
        return [system, published, "not measured", "", "", "", "", remark]
    return [system, published, "not measured", "", "", "", "", recipe.note]


def tried(recipe: Recipe, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that tested a fine-tuning recipe with other weights."""
    return [run for run in kept if run["recipe"] == recipe.name and run.get("weights")]


def figures(runs: list[dict[str, Any]]) -> list[str]:
    """Test top-1 over n seeds, parameters, epochs, seconds and hardware."""
    top1s, first = [100 * run["test_top1"] for run in runs], runs[0]
    spread = f" ± {statistics.stdev(top1s):.2f}" if len(top1s) > 1 else ""
    seconds = statistics.mean(run["training_s"] for run in runs)
    epochs = "/".join(str(n) for n in sorted({run["epochs"] for run in runs}))
    return [
        f"**{statistics.mean(top1s):.2f} %**{spread} (n = {len(runs)})",
        f"{first['parameters']:,}",
        epochs,
        f"{seconds:,.0f}",
        f"{first['threads']} thread{'s' * (first['threads'] > 1)}, {first['hardware']}",
    ]


def budget(whole: Job, run: Job, note: str) -> str:
    """How a run was smaller than its recipe."""
    less = [
        f"{field} {getattr(run.train, field)} instead of {getattr(whole.train, field)}"
        for field in ("epochs", "steps")
        if getattr(run.train, field) != getattr(whole.train, field)
    ]
    return "; ".join(part for part in (*less, note) if part)


def incomplete(runs: list[dict[str, Any]], job: Job) -> str:
    """The number of test rows, if it is smaller than published."""
    entry = DATASETS.get(job.dataset.name)
    if entry is None or not entry.rows:
        return ""
    every = entry.classes if job.dataset.labels == "fine" else entry.coarse_classes
    chosen = job.dataset.classes or len(every)
    share = (chosen if isinstance(chosen, int) else len(chosen)) / len(every)
    whole = round(entry.rows["test"] * share)  # where classes are chosen, of balanced datasets
    fewest = min(run["test_rows"] for run in runs)
    return f"{fewest:,} of {whole:,} test rows" if fewest < whole else ""


HEAD = """# Published systems and ours

`make results` (`make results SMALL=1` on a machine of two cores) runs the recipes of
[benchmarks/recipes.yaml](../benchmarks/recipes.yaml) and writes this page;
[results.json](results.json) has every run with its seed, commit, versions and resolved job. Our
figures are always top-1 on the whole test split (of the classes that the job learns) unless the
remarks name fewer rows, evaluated once, from the checkpoint chosen by validation. Published figures
are quoted from their reports, with the rows they were measured on. ± is the standard deviation over
seeds. Seconds are the time of all epochs, including validation but not the start of the node; other
work ran on the machine at the same time, so they are upper bounds.

| system | published top-1 | ours, test top-1 | parameters | epochs | s | hardware | remarks |
|---|---|---|---|---|---|---|---|
"""


def page(kept: list[dict[str, Any]]) -> str:
    """The text of docs/results.md."""
    lines = ["| " + " | ".join(cells(recipe, kept)) + " |\n" for recipe in recipes()]
    return HEAD + "".join(lines)


def left_out(recipe: Recipe, options: argparse.Namespace) -> bool:
    """Whether a recipe is skipped this time; prints why."""
    if options.only:
        return recipe.name not in options.only
    if options.small and recipe.skip:
        print(f"{recipe.name}: left out, it takes {recipe.skip} here", file=sys.stderr)
    return bool(options.small and recipe.skip)


def missing_seeds(recipe: Recipe, kept: list[dict[str, Any]], small: bool) -> list[int]:
    """The seeds without a recorded run."""
    done = {run["seed"] for run in measured(kept, recipe.jobs()[-1 if small else 0])}
    return [seed for seed in range(recipe.seeds) if seed not in done]


def main() -> None:
    """Run what is missing and write the page after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="store")
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--weights")
    parser.add_argument("--take")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.only) - {recipe.name for recipe in recipes()}:
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}")
    if (options.take or options.weights) and not options.only:
        parser.error("--take and --weights require --only, which names the recipe")
    kept: list[dict[str, Any]] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else []
    for recipe in () if options.write else recipes():
        if left_out(recipe, options):
            continue
        once = options.weights or options.take
        seeds = [0] if once else missing_seeds(recipe, kept, options.small)
        while seeds:
            run_id = options.take or run_recipe(recipe, seeds[0], options)
            kept.append(kept_of(recipe, run_id, options))
            print(f"{recipe.name}, seed {seeds[0]}: {kept[-1]['test_top1']:.4f}", file=sys.stderr)
            KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(page(kept), encoding="utf-8")
            # On another machine than before, no seed is done yet.
            seeds = [] if once else missing_seeds(recipe, kept, options.small)
    PAGE.write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
