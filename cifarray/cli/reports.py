"""Commands that read reports: report and compare; both need the store alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarray.cli import output
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    RunArgument,
    RunsArgument,
    StoreOption,
    open_store,
)
from cifarray.errors import InputError, WorkError

if TYPE_CHECKING:
    from cifarray.report.compare import ComparedRun, Comparison, Spread
    from cifarray.runs import Run

MOST_COLUMNS = 4
"""Runs up to which a comparison gives each a column; more get a line each."""

OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder to write the report's files to.",
        show_default=False,
    ),
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def report(
    run: RunArgument,
    folder: OutputOption = None,
    show: OpenOption = False,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the results of a finished run, and where its page is.

    \b
    Example:  cifarray report train-digits-26 --open
              cifarray report train-digits-26 --json
    """
    from cifarray.report.stored import fetch_report, read_report
    from cifarray.runs import Run

    found = Run.open(open_store(store, endpoint, cluster), run)
    content = read_report(found)
    page = _address(found) if folder is None else str(fetch_report(found, folder))
    if json:
        output.print_json(content)
    else:
        for name, text in _summary(content):
            output.print_line(f"{name:<12}{text}")
        output.print_line(f"{'page':<12}{page}")
    if show:
        _open(found, None if folder is None else Path(page))


def compare(
    runs: RunsArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare the reports of runs; runs of one job with different seeds are also averaged.

    \b
    Example:  cifarray compare train-digits-261123-101500-3fa2 tune-digits-261123-095500-77b0
    """
    from cifarray.report.compare import compare as compare_reports
    from cifarray.report.stored import read_report
    from cifarray.runs import Run

    opened = open_store(store, endpoint, cluster)
    found = list({each.id: each for each in (Run.open(opened, run) for run in runs)}.values())
    if len(found) < 2:
        raise InputError(
            f"compare requires at least two runs, but only {found[0].id} was given; `cifarray "
            "runs` lists others"
        )
    comparison = compare_reports([read_report(each) for each in found])
    if json:
        output.print_json(comparison.to_json())
        return
    _print_side_by_side(comparison)
    _print_groups(comparison)
    for note in comparison.notes:
        output.print_line(f"note: {note}")


def _summary(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The figures of a report that fit on a screen: (name, text)."""
    from cifarray.report import formats

    dataset, model = content["dataset"], content["model"]
    yield "run", content["run_id"]
    yield (
        "job",
        f"{content['job']} on {dataset['name']} {dataset['digest'][:12]}, {model['name']} "
        f"({formats.count(model['parameters'])} parameters)",
    )
    for split in ("test", "validation", "train"):
        yield split, _figures(content[split])
    yield "epoch", f"{content.get('best_epoch')} of {content.get('epochs')} is the best"
    trials = content.get("trials")
    if trials:
        states = [trial["state"] for trial in trials]
        counts = (f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        yield "trials", f"{len(trials)}: {', '.join(counts)}"
        for best in (trial for trial in trials if trial["id"] == content.get("best_trial_id")):
            settings = best["parameters"].items()
            shown = ", ".join(f"{field} {formats.value(value)}" for field, value in settings)
            yield "best trial", f"{best['id']}: {shown}"
    speed = content["train"].get("images_per_s")
    rate = "" if speed is None else f"{formats.number(speed, 3)} images/s, "
    workers = content["world_size"]
    yield (
        "speed",
        f"{rate}{workers} worker{'' if workers == 1 else 's'}, "
        f"{formats.duration(content['duration_s'])} from submission to report",
    )


def _figures(split: Mapping[str, Any]) -> str:
    from cifarray.report import formats

    parts = [f"top-1 {formats.percent(split['top1'])}"]
    if split.get("top1_interval"):
        parts[0] += f" ({formats.interval(split['top1_interval'])})"
    parts.append(f"top-5 {formats.percent(split.get('top5'))}")
    if split.get("superclass_top1") is not None:
        parts.append(f"superclass {formats.percent(split['superclass_top1'])}")
    parts.append(f"loss {formats.loss(split.get('loss'))}")
    return ", ".join(parts) + f", {formats.count(split.get('rows'))} rows"


def _address(run: "Run") -> str:
    """Where the page is: a path on this machine, or its address in the store."""
    from cifarray.store.layout import PAGE_FILE

    key = f"{run.report_prefix()}/{PAGE_FILE}"
    is_bucket = run.store.uri.startswith("s3://")
    return f"{run.store.uri.rstrip('/')}/{key}" if is_bucket else run.store.path(key)


def _open(run: "Run", page: Path | None) -> None:
    """Show the page in a browser; one in a bucket is brought here first."""
    import tempfile
    import webbrowser

    from cifarray.report.stored import fetch_report

    if page is None and run.store.uri.startswith("s3://"):
        page = fetch_report(run, Path(tempfile.mkdtemp(prefix="cifarray-report-")))
    shown = page or Path(_address(run))
    if not webbrowser.open(shown.absolute().as_uri()):
        raise WorkError(f"no browser found on this machine; the page is {shown.absolute()}")


def _print_side_by_side(comparison: "Comparison") -> None:
    columns = _columns(comparison.runs)
    if len(comparison.runs) <= MOST_COLUMNS:
        (corner, ids), *rest = columns
        output.print_table([corner, *ids], [[name, *cells] for name, cells in rest])
    else:
        names = [name for name, _ in columns]
        output.print_table(names, list(zip(*(cells for _, cells in columns), strict=True)))


def _columns(runs: Sequence["ComparedRun"]) -> list[tuple[str, list[str]]]:
    """(name, one cell per run)"""
    from cifarray.report import formats

    return [
        ("run", [run.run_id for run in runs]),
        ("job", [run.job for run in runs]),
        ("dataset", [f"{run.dataset} {run.digest[:12]}" for run in runs]),
        ("workers", [str(run.world_size) for run in runs]),
        ("seed", [str(run.seed) for run in runs]),
        *(
            (path, [formats.value(run.fields[path]) for run in runs])
            for path in (runs[0].fields if runs else ())
        ),
        ("test top-1", [formats.percent(run.test_top1) for run in runs]),
        ("95 % interval", [formats.interval(run.test_top1_interval) for run in runs]),
        ("validation top-1", [formats.percent(run.validation_top1) for run in runs]),
        ("images/s", [formats.number(run.images_per_s, 3) for run in runs]),
        ("duration", [formats.duration(run.duration_s) for run in runs]),
    ]


def _print_groups(comparison: "Comparison") -> None:
    for group in comparison.groups:
        seeds = ", ".join(map(str, group.seeds))
        output.print_line()
        output.print_line(f"{group.job}, {group.digest[:12]}, over the seeds {seeds}:")
        rows = [_spread(path, spread) for path, spread in group.figures.items()]
        output.print_table(("figure", "mean", "standard deviation", "n"), rows)


def _spread(path: str, spread: "Spread") -> tuple[str, str, str, str]:
    from cifarray.report import formats

    mean, std = formats.metric(path, spread.mean), formats.metric(path, spread.std)
    return path, mean, std, str(spread.n)
