"""Shows a followed run to a person: its progress, its end, and how to follow it again."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from cifarray.cli import output
from cifarray.cli.foreign_text import one_line
from cifarray.cli.options import store_words

if TYPE_CHECKING:
    from cifarray.backends.base import Backend
    from cifarray.backends.follow import Outcome
    from cifarray.backends.progress_text import TimeEstimate
    from cifarray.runs import Run, Status
    from cifarray.spec.profile import Profile

Show = Callable[["Status", str], None]
INTERRUPTED = 130


def say_where(run: "Run", cluster: "Backend") -> None:
    """Name the run, its dashboard, and the commands that follow or stop it."""
    words = run.id + store_words(run.store)
    output.say(f"run        {run.id}")
    output.say(f"store      {run.store.uri}")
    recorded = run.status().cluster or {}
    output.say(f"dashboard  {recorded.get('dashboard') or cluster.dashboard}")
    output.say(f"follow     cifarray logs -f {words}")
    output.say(f"stop       cifarray stop {words}")


def follow_runs(runs: "Sequence[Run]", as_json: bool, profile: "Profile | None" = None) -> None:
    """Follow runs one after the other to their ends; ends the command with their outcome.

    `profile` is the one on which they were submitted.
    Raises: typer.Exit with 1 if one failed, with 130 on Ctrl-C, which leaves the runs alone.
    """
    over = []
    for number, run in enumerate(runs, 1):
        if len(runs) > 1:
            output.say(f"run {number} of {len(runs)}: {run.id}")
        try:
            over.append(follow_run(run, profile))
        except KeyboardInterrupt:
            _say_detached(runs[number - 1 :])
            raise typer.Exit(INTERRUPTED) from None
    end_with(over, as_json)


def follow_run(run: "Run", profile: "Profile | None" = None) -> "Outcome":
    """Follow one run to its end and say how it ended."""
    from cifarray.backends.follow import Follower
    from cifarray.backends.trust import recorded_backend

    recorded = run.status().cluster or {}
    cluster, job_id = recorded_backend(run, recorded, profile), recorded.get("job_id")
    follower = Follower(run, cluster, job_id)
    with _shown() as show:
        if output.is_verbose():
            threading.Thread(target=_print_log, args=(cluster, job_id), daemon=True).start()
        outcome = follower.follow(show)
    if outcome.state in ("failed", "lost"):
        lines = follower.last_lines()
        output.say("the last lines of its log:" if lines else "it left no log")
        for line in lines:
            output.say(f"  {line}")
        output.say(f"why        cifarray status {run.id}{store_words(run.store)} --why")
    if not outcome.cause and cluster is not None and job_id is not None:
        _clear_away(run, outcome.status, cluster, job_id)
    return ended(outcome)


def _clear_away(run: "Run", status: "Status", cluster: "Backend", job_id: str) -> None:
    """After a run has ended, delete what it no longer needs: retries, a policy."""
    from cifarray.errors import ClusterError

    try:
        if done := cluster.clear_away(run, status, job_id):
            output.say(done)
    except ClusterError as error:
        output.warn(f"job {job_id} may continue: {error}; `cifarray stop {run.id}` ends it")


def ended(outcome: "Outcome") -> "Outcome":
    """Say how a run ended and what to do next."""
    run, status = outcome.run, outcome.status
    words = run.id + store_words(run.store)
    if status.state == "finished":
        best = status.best or {}
        value = best.get("value")
        reached = f": {best.get('metric')} {value:.4f}" if isinstance(value, float) else ""
        output.say(f"run {run.id} finished{reached}")
        output.say(f"report     cifarray report {words}")
        output.say(f"pull       cifarray pull {words}")
    elif status.state == "stopped":
        output.say(f"run {run.id} was stopped; `cifarray resume {words}` continues it")
    return outcome


def end_with(over: "Sequence[Outcome]", as_json: bool) -> None:
    """Print the outcome as data if asked to. Raises: RunFailedError if a run did not finish."""
    from cifarray.errors import RunFailedError

    if as_json:
        described = [_described(each) for each in over]
        output.print_json(described if len(over) > 1 else described[0])
    bad = [each for each in over if each.state != "finished"]
    if bad:
        first = bad[0]
        reason = f": {_reason(first)}" if _reason(first) else ""
        verb = {"stopped": "was stopped", "lost": "is lost"}.get(first.state, first.state)
        raise RunFailedError(f"run {first.run.id} {verb}{reason}")


def _reason(outcome: "Outcome") -> str | None:
    """Why a run did not finish."""
    if not outcome.cause:
        return outcome.status.error
    words = outcome.run.id + store_words(outcome.run.store)
    return f"{outcome.cause}; `cifarray resume {words}` continues from its last checkpoint"


def _described(each: "Outcome") -> dict[str, Any]:
    cluster = each.status.cluster or {}
    return {
        "run_id": each.run.id,
        "store": each.run.store.uri,
        "state": each.state,
        "best": each.status.best,
        "error": _reason(each),
        "dashboard": cluster.get("dashboard"),
    }


def _say_detached(runs: "Sequence[Run]") -> None:
    for run in runs:
        words = run.id + store_words(run.store)
        output.say(f"run {run.id} continues in the background")
        output.say(f"follow     cifarray logs -f {words}")
        output.say(f"see        cifarray status {words}")
        output.say(f"stop       cifarray stop {words}")


@contextmanager
def _shown() -> Iterator[Show]:
    """A live line on a terminal, or a plain line whenever something changes."""
    if output.is_quiet():
        yield lambda status, remark: None
    elif output.on_terminal():
        with _live_line() as show:
            yield show
    else:
        yield _plain_lines()


def _print_log(cluster: "Backend | None", job_id: str | None) -> None:
    """Print the driver's log as it is written."""
    from cifarray.errors import ClusterError

    if cluster is None or not job_id:
        return
    try:
        for text in cluster.jobs().tail(job_id):
            for line in text.splitlines():
                output.detail(f"  {line}")
    except ClusterError as error:
        output.detail(str(error))


def _line(status: "Status", remark: str, estimate: "TimeEstimate") -> str:
    from cifarray.backends.progress_text import progress_line

    if status.state == "pending":
        return remark or "starting the driver"
    line = progress_line(status, estimate.remaining_s(status))
    return f"{line}  ({remark})" if remark else line


@contextmanager
def _live_line() -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from cifarray.backends.progress_text import TimeEstimate, fraction_done

    estimate = TimeEstimate()

    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), BarColumn(20), TimeElapsedColumn(), text)
    with Progress(*columns, console=output.console()) as bars:
        task = bars.add_task("", total=None)

        def show(status: "Status", remark: str) -> None:
            done = fraction_done(status)
            line = one_line(_line(status, remark, estimate))
            total = None if done is None else 1.0
            bars.update(task, description=line, total=total, completed=done or 0.0)

        yield show


def _plain_lines() -> Show:
    from cifarray.backends.progress_text import TimeEstimate

    last, estimate = "", TimeEstimate()

    def show(status: "Status", remark: str) -> None:
        nonlocal last
        line = _line(status, remark, estimate)
        stable = line.partition("  ETA")[0]
        if stable != last:
            output.say(line)
        last = stable

    return show
