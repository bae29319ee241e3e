"""Runs side by side: where their jobs differ, and mean and spread over seeds of the same job."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cifarray.report.stored import field_at

FIGURES = ("test.top1", "test.top5", "test.loss", "validation.top1", "train.images_per_s")
"""What a group of seeds is summed up by; dotted paths of report.json."""

UNTOLD = ("name", "kind", "description", "seed", "sweep")
"""Fields of a job that are shown elsewhere or cannot cause a difference."""

BROUGHT = ("code.sha256", "weights.sha256")
"""Files of a run besides the job; equal checksums mean equal bytes."""


@dataclass(frozen=True)
class ComparedRun:
    """One column of a comparison."""

    run_id: str
    job: str
    kind: str
    dataset: str
    digest: str
    world_size: int
    seed: int
    fields: dict[str, Any]
    """Those of the job, and of a sweep's best trial, in which the runs differ."""
    test_top1: float
    test_top1_interval: tuple[float, float]
    validation_top1: float
    images_per_s: float | None
    duration_s: float


@dataclass(frozen=True)
class Spread:
    """A figure over seeds."""

    mean: float
    std: float
    """Of the sample: divided by n - 1."""
    n: int


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one job on one dataset that differ in their seed alone."""

    job: str
    digest: str
    world_size: int
    run_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    figures: dict[str, Spread]


@dataclass(frozen=True)
class Comparison:
    """What `cifarray compare` shows."""

    runs: tuple[ComparedRun, ...]
    groups: tuple[SeedGroup, ...]
    notes: tuple[str, ...]
    """Sentences on what makes figures incomparable."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema_version": 1, **asdict(self)}


def compare(reports: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare the contents of report.json of several runs."""
    fields = [_causes(report) for report in reports]
    paths = dict.fromkeys(path for found in fields for path in found)
    differing = [path for path in paths if len({_key(f.get(path)) for f in fields}) > 1]
    runs = tuple(
        ComparedRun(
            run_id=report["run_id"],
            job=report["job"],
            kind=report["kind"],
            dataset=report["dataset"]["name"],
            digest=report["dataset"]["digest"],
            world_size=report["world_size"],
            seed=report["seeds"]["job"],
            fields={path: found.get(path) for path in differing},
            test_top1=report["test"]["top1"],
            test_top1_interval=tuple(report["test"]["top1_interval"]),
            validation_top1=report["validation"]["top1"],
            images_per_s=field_at(report, "train.images_per_s"),
            duration_s=report["duration_s"],
        )
        for report, found in zip(reports, fields, strict=True)
    )
    groups, repeats = _groups(reports)
    return Comparison(runs, groups, (*_notes(reports), *repeats))


def _causes(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return by dotted path what the figures come from: a sweep's are those of its best trial."""
    job = {key: part for key, part in report["resolved_job"].items() if key not in UNTOLD}
    fields = dict(_flat(job))
    trials = report.get("trials") or ()
    best = next((trial for trial in trials if trial["id"] == report.get("best_trial_id")), None)
    fields |= best["parameters"] if best else {}
    return fields | {path: field_at(report, path) for path in BROUGHT}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, part in values.items():
        inner = isinstance(part, Mapping) and len(part) > 0
        pairs += _flat(part, f"{prefix}{key}.") if inner else [(prefix + key, part)]
    return pairs


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _groups(
    reports: Sequence[Mapping[str, Any]],
) -> tuple[tuple[SeedGroup, ...], list[str]]:
    """Put runs together that differ in their seed alone; a seed that is there twice counts once."""
    together: dict[str, dict[int, Mapping[str, Any]]] = {}
    repeats = []
    for report in reports:
        job = {**report["resolved_job"], "seed": None, "description": None}
        brought = [field_at(report, path) for path in BROUGHT]
        same = together.setdefault(
            _key([job, report["dataset"]["digest"], report["world_size"], *brought]), {}
        )
        first = same.setdefault(report["seeds"]["job"], report)
        if first is not report:
            repeats.append(
                f"{report['run_id']} repeats seed {report['seeds']['job']} of {first['run_id']}"
                " and is left out of the mean"
            )
    groups = [_group(list(same.values())) for same in together.values() if len(same) > 1]
    return tuple(groups), repeats


def _group(reports: Sequence[Mapping[str, Any]]) -> SeedGroup:
    figures = {}
    for path in FIGURES:
        values = [value for report in reports if (value := field_at(report, path)) is not None]
        if len(values) > 1:
            mean, std = statistics.fmean(values), statistics.stdev(values)
            figures[path] = Spread(mean, std, len(values))
    return SeedGroup(
        job=reports[0]["job"],
        digest=reports[0]["dataset"]["digest"],
        world_size=reports[0]["world_size"],
        run_ids=tuple(report["run_id"] for report in reports),
        seeds=tuple(report["seeds"]["job"] for report in reports),
        figures=figures,
    )


def _notes(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the runs do not share, as far as figures depend on it."""
    notes = []
    datasets = dict.fromkeys(
        f"{report['dataset']['name']} {report['dataset']['digest'][:12]}" for report in reports
    )
    if len(datasets) > 1:
        notes.append(
            f"the runs were measured on different datasets ({', '.join(datasets)}):"
            " their accuracies cannot be compared"
        )
    if len({report["test"]["rows"] for report in reports}) > 1 and len(datasets) == 1:
        notes.append("the runs were tested on different numbers of rows")
    classes = {_key(field_at(report, "dataset.selection.classes")) for report in reports}
    if len(classes) > 1 and len(datasets) == 1:
        notes.append("the runs learned different classes: their accuracies cannot be compared")
    versions: dict[str, set[str]] = {}
    for report in reports:
        for name, version in report["versions"].items():
            versions.setdefault(name, set()).add(version)
    unequal = [name for name, found in versions.items() if len(found) > 1]
    if unequal:
        notes.append(f"the runs used different versions of {', '.join(unequal)}")
    if len({_key(report["hardware"]) for report in reports}) > 1:
        notes.append("the runs had different hardware: compare neither images/s nor durations")
    return notes
