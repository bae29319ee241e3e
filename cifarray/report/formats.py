"""How figures are written for a person: percent, numbers, durations, plain text."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

MISSING = "–"
"""What a table shows for a figure that is not there."""


def percent(share: float | None, digits: int = 2) -> str:
    """0.9722 -> '97.22 %'."""
    return f"{100 * share:.{digits}f} %" if _known(share) else MISSING


def interval(bounds: Any) -> str:
    """(0.95, 0.98) -> '95.00 to 98.00 %'."""
    return MISSING if not bounds else f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f} %"


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits; whole numbers from 1000 on are grouped."""
    if not _known(value):
        return MISSING
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def loss(value: float | None) -> str:
    """Four digits after the point."""
    return f"{value:.4f}" if _known(value) else MISSING


def moment(text: str) -> str:
    """'2026-03-01T12:00:00+00:00' -> '2026-03-01 12:00:00 UTC'; other texts as they are."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return printable(text)
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(value: int | None) -> str:
    """1193636 -> '1,193,636'."""
    return MISSING if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """135 -> '2 min 15 s'."""
    if not _known(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def value(anything: Any) -> str:
    """Write a job field's value: short numbers, on / off, lists."""
    if anything is None:
        return MISSING
    if isinstance(anything, bool):
        return "on" if anything else "off"
    if isinstance(anything, float):
        return f"{anything:.3g}"
    if isinstance(anything, Mapping):
        return ", ".join(f"{printable(str(key))} {value(part)}" for key, part in anything.items())
    if isinstance(anything, list | tuple):
        return ", ".join(value(part) for part in anything)
    return printable(str(anything))


def metric(name: str, figure: float | None) -> str:
    """Write an epoch's figure as its name asks: shares as percent, losses, other numbers."""
    if name.rpartition("top")[2] in ("1", "5"):
        return percent(figure)
    return loss(figure) if name.endswith("loss") else number(figure)


def printable(text: str) -> str:
    """Return text without control characters, which a terminal or a page would act on."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(text: str, limit: int = 28) -> str:
    """Return printable text, cut where it is long."""
    clean = printable(text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _known(figure: float | None) -> TypeGuard[float]:
    return figure is not None and math.isfinite(figure)
