"""Where a swept value stands on an axis from 0 to 1: evenly, by value or by its logarithm."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator

from cifarray.report import formats
from cifarray.spec.space import Domain


@dataclass(frozen=True)
class Scale:
    """An axis: its ticks, and the place of a value."""

    ticks: tuple[tuple[float, str], ...]
    """(place, label)"""
    place: Callable[[Any], float | None]
    """None for a value that does not belong on the axis."""
    choices: tuple[str, ...] = ()
    """Labels of an axis of separate values, in order."""


def domain_scale(domain: Domain) -> Scale:
    """Return the axis for a swept field."""
    if domain.kind in ("choice", "grid"):
        return choice_scale([formats.value(option) for option in domain.examples])
    low, high = (float(bound) for bound in domain.examples)
    if domain.kind == "loguniform":
        return log_scale(low, high)
    return linear_scale(low, high, whole=domain.kind == "randint")


def choice_scale(labels: Sequence[str]) -> Scale:
    """Spread separate values evenly."""
    known = tuple(dict.fromkeys(labels))
    places = {label: (number + 0.5) / len(known) for number, label in enumerate(known)}
    ticks = tuple((place, formats.shortened(label, 16)) for label, place in places.items())
    return Scale(ticks, lambda value: places.get(formats.value(value)), known)


def linear_scale(
    low: float, high: float, write: Callable[[float], str] = "{:g}".format, whole: bool = False
) -> Scale:
    """Spread numbers by their value; `whole` puts ticks at whole numbers only."""
    if low == high:
        low, high = low - 0.5, high + 0.5
    locator = MaxNLocator(nbins=5, integer=whole, min_n_ticks=1)
    ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
    return _between(low, high, ticks, write)


def log_scale(low: float, high: float) -> Scale:
    """Spread numbers by their logarithm."""
    ticks = [tick for tick in LogLocator().tick_values(low, high) if low <= tick <= high * 1.0001]
    ends = ticks if len(ticks) > 1 else [low, high]
    return _between(low, high, ends, lambda tick: f"{tick:.3g}", math.log10)


def metric_scale(metric: str, values: Sequence[float]) -> Scale:
    """Return the axis of a sweep's metric, a little longer than its values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.04 * (high - low)
    shares = formats.metric(metric, 1.0).endswith("%")
    write: Callable[[float], str] = (lambda v: f"{100 * v:g} %") if shares else "{:g}".format
    return linear_scale(low - pad, high + pad, write)


def ranks(values: Mapping[int, float], mode: str, steps: int) -> dict[int, int]:
    """Return for each key 0 (worst) to steps - 1 (best), by rank; equal values share one."""
    known = sorted(set(values.values()), reverse=mode == "min")
    top = max(len(known) - 1, 1)
    return {key: round((steps - 1) * known.index(v) / top) for key, v in values.items()}


def _between(
    low: float,
    high: float,
    ticks: Sequence[float],
    write: Callable[[float], str],
    bend: Callable[[float], float] = float,
) -> Scale:
    start, end = bend(low), bend(high)

    def place(value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not low <= value <= high:
            return None
        return (bend(value) - start) / (end - start)

    return Scale(tuple((place(tick) or 0.0, write(tick)) for tick in ticks), place)
