"""How commands talk: data on standard output, remarks and progress on standard error."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cifarray.cli.foreign_text import in_json, lines, log, one_line
from cifarray.spec.quantity import written_bytes

if TYPE_CHECKING:
    from rich.console import Console

QUIET, NORMAL, VERBOSE = 0, 1, 2
PLAIN_PROGRESS_STEPS = 10

_state = {"level": NORMAL}


def set_level(level: int) -> None:
    """How much commands print from now on: QUIET, NORMAL or VERBOSE."""
    _state["level"] = level


def is_quiet() -> bool:
    """Whether only data and errors are wanted."""
    return _state["level"] <= QUIET


def is_verbose() -> bool:
    """Whether details are wanted."""
    return _state["level"] >= VERBOSE


def on_terminal() -> bool:
    """Whether progress goes to a terminal, where it may redraw itself."""
    return sys.stderr.isatty()


def can_ask() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, default: bool = False) -> bool:
    """A question on standard error; whether the person agrees."""
    import typer

    return typer.confirm(one_line(question), default=default, err=True)


def say(text: str) -> None:
    """A remark for the person who waits; silent under --quiet."""
    if not is_quiet():
        print(one_line(text), file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """A remark that only -v shows."""
    if is_verbose():
        print(one_line(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A remark that --quiet does not silence."""
    print(f"warning: {one_line(text)}", file=sys.stderr, flush=True)


def print_line(text: str = "") -> None:
    """One line of data."""
    print(one_line(text))


def print_json(value: Any) -> None:
    """Data for a program: JSON on standard output; NaN and infinities become null."""
    finite = json.loads(json.dumps(value, default=_as_json), parse_constant=lambda _: None)
    print(in_json(json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False)))


def print_text(text: str) -> None:
    """Data of several lines."""
    print(lines(text), end="")


def print_log(text: str) -> None:
    """What a run's processes wrote, with its colors."""
    print(log(text), end="", flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Data for a person: aligned columns, numbers to the right; an absent value is a dash."""
    cells = [["-" if value is None else one_line(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [
        bool(column) and all(re.fullmatch(r"-|[-+]?[\d.,:]+( ?[%a-zA-Z]{1,3})?", c) for c in column)
        for column in zip(*cells, strict=True)
    ] or [False] * len(columns)
    for line in (list(columns), *cells):
        placed = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        print("  ".join(placed).rstrip())


def console() -> "Console":
    """Rich's console for progress and live views, on standard error."""
    from rich.console import Console

    return Console(stderr=True, quiet=is_quiet(), highlight=False, markup=False)


@contextmanager
def progress(title: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A progress bar; yields a function to call with each new amount.

    `unit` "bytes" shows sizes and speed. Without a terminal every tenth part is a plain line.
    """
    if is_quiet():
        yield lambda amount: None
    elif on_terminal():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        yield _plain_progress(title, total, unit)


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich import progress as rich

    amounts: tuple[rich.ProgressColumn, ...] = (
        (rich.DownloadColumn(), rich.TransferSpeedColumn())
        if unit == "bytes"
        else (rich.MofNCompleteColumn(), rich.TextColumn(unit))
    )
    text = rich.TextColumn("{task.description}", markup=False)
    columns = (text, rich.BarColumn(), *amounts, rich.TimeRemainingColumn())
    with rich.Progress(*columns, console=console()) as bars:
        task = bars.add_task(one_line(title), total=total)
        yield lambda amount: bars.advance(task, amount)


def _plain_progress(title: str, total: int | None, unit: str) -> Callable[[int], None]:
    done = shown = 0
    say(f"{title} ...")

    def advance(amount: int) -> None:
        nonlocal done, shown
        done += amount
        part = done * PLAIN_PROGRESS_STEPS // total if total else 0
        if total and part > shown:
            shown = part
            amounts = (
                f"{written_bytes(done)} of {written_bytes(total)}"
                if unit == "bytes"
                else f"{done} of {total} {unit}".rstrip()
            )
            say(f"{title}: {amounts}")

    return advance


def age(seconds: float) -> str:
    """How long ago, in the largest fitting unit, as in 5 min."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)
