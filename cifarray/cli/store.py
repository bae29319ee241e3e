"""Commands on the content of a store: pull, delete, prune, exporter."""

import re
import signal
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
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
    VerboseOption,
    YesOption,
    named_cluster,
    open_store,
)
from cifarray.errors import InputError, WorkError
from cifarray.spec.quantity import written_bytes

if TYPE_CHECKING:
    from cifarray.runs import Examined, PrunePlan, Pulled, Run

UNITS = {"min": 60, "h": 3600, "d": 86400, "w": 604800}

FolderArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="Folder to download to  [default: ./<run id>]"),
]
OlderThanOption = Annotated[
    str | None,
    typer.Option(
        "--older-than",
        metavar="AGE",
        help="Delete runs that ended longer ago than this: 12h, 7d or 4w.",
    ),
]
KeepBestOption = Annotated[
    int | None,
    typer.Option("--keep-best", metavar="N", min=0, help="Keep the N best runs of each job."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")]
HostOption = Annotated[
    str, typer.Option("--host", help="Address to listen on; 0.0.0.0 means every interface.")
]
IntervalOption = Annotated[
    float, typer.Option("--interval", min=1.0, help="Seconds between two reads of the store.")
]


def pull(
    run: RunArgument,
    folder: FolderArgument = None,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Download a run: best and last checkpoint, report, records and logs, all verified.

    An interrupted pull continues where it stopped.

    \b
    Example:  cifarray pull train-digits-26
              cifarray pull train-digits-26 results/digits
    """
    from cifarray.runs import Run, plan_pull
    from cifarray.runs import pull as pull_run

    found = Run.open(open_store(store, endpoint, cluster), run)
    target = folder or Path(found.id)
    plan = plan_pull(found)
    with output.progress(f"pulling {found.id}", plan.size_bytes, "bytes") as advance:
        pulled = pull_run(found, target, plan, advance)
    if json:
        output.print_json(_as_json(pulled))
    else:
        _print_pulled(pulled)
    if pulled.problems:
        more = f" (and {len(pulled.problems) - 1} more)" if len(pulled.problems) > 1 else ""
        raise WorkError(
            f"run {found.id} was pulled incompletely: {pulled.problems[0]}{more}; what is listed "
            "above is complete"
        )


def delete(
    runs: RunsArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    yes: YesOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete runs with all their files; a live run is refused.

    \b
    Example:  cifarray delete train-digits-261123-101500-3fa2
    """
    from cifarray.backends.observe import EvidenceCollector
    from cifarray.runs import Run, delete_run, examine, refuse_live

    opened, named = open_store(store, endpoint, cluster), named_cluster(cluster)
    found = list({each.id: each for each in (Run.open(opened, run) for run in runs)}.values())
    examined = examine(found, EvidenceCollector(named).evidence, output.say)
    for one in examined:
        refuse_live(one)
    sizes = [each.size_bytes() for each in found]
    if not json:
        rows = [(each.id, written_bytes(size)) for each, size in zip(found, sizes, strict=True)]
        output.print_table(["run", "size"], rows)
    if not _agreed(f"delete {_count(len(found), 'run')} in {opened.uri}?", yes):
        return
    with output.progress("deleting", len(found), "runs") as advance:
        for one in examined:
            delete_run(one.run, one)
            advance(1)
    freed = sum(sizes)
    if json:
        output.print_json({"deleted": [each.id for each in found], "freed_bytes": freed})
    else:
        output.print_line(f"deleted {_count(len(found), 'run')}, freed {written_bytes(freed)}")


def prune(
    older_than: OlderThanOption = None,
    keep_best: KeepBestOption = None,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    yes: YesOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete runs that are old or not among the best, and datasets that no run uses any more.

    Without --older-than and --keep-best only unused datasets are deleted.

    \b
    Example:  cifarray prune --older-than 7d --keep-best 3 --dry-run
    """
    from cifarray.backends.observe import EvidenceCollector
    from cifarray.runs import examine, execute_plan, plan_prune

    age, named = None if older_than is None else _age(older_than), named_cluster(cluster)

    def examine_runs(found: "Iterable[Run]") -> "list[Examined]":
        return examine(found, EvidenceCollector(named, many=True).evidence, output.say)

    plan = plan_prune(open_store(store, endpoint, cluster), age, keep_best, examine_runs)
    if not json:
        _print_plan(plan, limited=age is not None or keep_best is not None)
    for remark in plan.remarks:
        output.warn(remark)
    amount = len(plan.runs) + len(plan.datasets)
    if dry_run or not amount:
        if json:
            output.print_json(_plan_as_json(plan, deleted=[]))
        return
    if not _agreed(f"delete all of this in {plan.store.uri}?", yes):
        return
    deleted: list[str] = []
    with output.progress("deleting", amount) as advance:
        for remark in execute_plan(plan, _recording(deleted, advance)):
            output.warn(remark)
    if json:
        output.print_json(_plan_as_json(plan, deleted))
    else:
        output.print_line(f"deleted {len(deleted)} of {amount}")


def exporter(
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    port: PortOption = 9808,
    host: HostOption = "127.0.0.1",
    interval: IntervalOption = 30.0,
    quiet: QuietOption = False,
) -> None:
    """Serve metrics of a store's runs to Prometheus, until SIGTERM or Ctrl-C.

    \b
    Example:  cifarray exporter --store s3://bucket/cifarray
    """
    from cifarray.monitoring.exporter import export

    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        export(open_store(store, endpoint), host, port, interval, stop, output.say)
    finally:
        signal.signal(signal.SIGTERM, before)


def _recording(deleted: list[str], advance: Callable[[int], None]) -> Callable[[str], None]:
    def done(name: str) -> None:
        deleted.append(name)
        advance(1)

    return done


def _agreed(question: str, yes: bool) -> bool:
    """Whether the person agrees. Raises: InputError if nobody can be asked."""
    if yes:
        return True
    if not output.can_ask():
        raise InputError(f"{question} nobody can be asked; add --yes to do it")
    if output.ask(question):
        return True
    output.say("nothing was deleted")
    return False


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*(min|h|d|w)", text.strip())
    if not found:
        raise InputError(
            f"--older-than {text!r} is not an age; give a number followed by min, h, d or w, as "
            "in 7d"
        )
    return timedelta(seconds=float(found.group(1)) * UNITS[found.group(2)])


def _print_pulled(pulled: "Pulled") -> None:
    output.print_line(f"run {pulled.run_id} is in {pulled.folder}")
    for kind, folder in pulled.checkpoints.items():
        output.print_line(f"  {kind} checkpoint  {folder}")
    if pulled.report:
        output.print_line(f"  report           {pulled.report}")
    fetched = written_bytes(pulled.fetched_bytes)
    output.print_line(f"  {_count(len(pulled.files), 'file')} verified, {fetched} downloaded")
    for problem in pulled.problems:
        output.warn(problem)


def _as_json(pulled: "Pulled") -> dict[str, Any]:
    return {
        "run_id": pulled.run_id,
        "folder": str(pulled.folder),
        "checkpoints": {kind: str(folder) for kind, folder in pulled.checkpoints.items()},
        "report": str(pulled.report) if pulled.report else None,
        "files": len(pulled.files),
        "fetched_bytes": pulled.fetched_bytes,
        "problems": pulled.problems,
    }


def _print_plan(plan: "PrunePlan", limited: bool) -> None:
    if not plan.runs and not plan.datasets:
        hint = "" if limited else "; to delete runs give --older-than AGE or --keep-best N"
        output.print_line(f"nothing to prune in {plan.store.uri}{hint}")
        return
    rows: list[tuple[str, str, str]] = [
        (s.run.id, "lost" if s.run.id in plan.dead else s.status.state, written_bytes(s.size_bytes))
        for s in plan.runs
    ]
    rows += [(d.prefix, "unused", written_bytes(d.size_bytes)) for d in plan.datasets]
    output.print_table(["what", "state", "size"], rows)
    output.print_line(f"{written_bytes(plan.size_bytes)} in all")


def _plan_as_json(plan: "PrunePlan", deleted: list[str]) -> dict[str, Any]:
    return {
        "runs": [summary.run.id for summary in plan.runs],
        "datasets": [dataset.prefix for dataset in plan.datasets],
        "size_bytes": plan.size_bytes,
        "deleted": deleted,
        "remarks": plan.remarks,
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
