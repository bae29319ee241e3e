"""Figures of a sweep: what each trial was set to, against what it reached."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import LogLocator, MaxNLocator

from cifarray.metrics import OBJECTIVES
from cifarray.report import formats
from cifarray.report.curves import WIDTH, trial_text
from cifarray.report.formats import shortened
from cifarray.report.inputs import Trial
from cifarray.report.svg import COLORS, draw
from cifarray.spec.sweep import Domain, SweepSpec

SEQUENCE_STEPS = 7
MOST_CHOICE_COLORS = 8
MOST_FIELDS_IN_A_ROW = 4


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


@dataclass(frozen=True)
class SweepView:
    """The trials of a sweep with the axes that they are shown on."""

    trials: Sequence[Trial]
    values: dict[int, float]
    """Best value of the metric, by the trial's position; trials without one are absent."""
    fields: dict[str, Scale]
    result: Scale
    metric: str
    mode: str
    best_id: str | None
    color_field: str | None
    """The first field of few separate values: its values get a color each."""

    @classmethod
    def of(cls, trials: Sequence[Trial], sweep: SweepSpec, best_id: str | None) -> "SweepView":
        """Lay out the trials of a sweep."""
        mode = OBJECTIVES[sweep.metric]
        found = {i: trial.best(sweep.metric) for i, trial in enumerate(trials)}
        values = {i: best.value for i, best in found.items() if best is not None}
        fields = {field: domain_scale(domain) for field, domain in sweep.space.items()}
        for field in () if fields else sweep.fields:
            shown = [formats.value(trial.parameters.get(field)) for trial in trials]
            fields[field] = choice_scale(shown)
        few = [f for f, scale in fields.items() if 0 < len(scale.choices) <= MOST_CHOICE_COLORS]
        return cls(
            trials=trials,
            values=values,
            fields=fields,
            result=metric_scale(sweep.metric, list(values.values())),
            metric=sweep.metric,
            mode=mode,
            best_id=best_id,
            color_field=few[0] if few else None,
        )

    def choice_color(self, trial: Trial) -> str:
        """Name the color of the trial's value of `color_field`."""
        if self.color_field is None:
            return "accent"
        scale = self.fields[self.color_field]
        place = scale.place(trial.parameters.get(self.color_field))
        return "muted" if place is None else f"cat-{int(place * len(scale.choices))}"


def parallel(view: SweepView) -> str:
    """Draw parallel coordinates: an axis per field, the metric last, a line per trial."""
    scales = [*view.fields.values(), view.result]
    limit = 110 // len(scales)
    names = [*(_axis_name(field, limit) for field in view.fields), f"best {view.metric}"]
    steps = ranks(view.values, view.mode, SEQUENCE_STEPS)

    def paint(figure: Figure) -> dict[str, list[str]]:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_xlim(-0.35, len(scales) - 0.65)
        axes.set_ylim(-0.04, 1.12)
        for x, (scale, name) in enumerate(zip(scales, names, strict=True)):
            _upright(axes, x, scale, name, is_last=x == len(scales) - 1)
        tips: dict[str, list[str]] = {}
        order = sorted(range(len(view.trials)), key=lambda i: steps.get(i, -1))
        for number in order:
            trial = view.trials[number]
            points = _points(trial, view, number)
            if len(points) > 1:
                _trial_curve(axes, points, number, steps.get(number), trial.id == view.best_id)
                tips[f"trial:{number}:hit"] = [
                    trial_text(trial, view.metric, view.values.get(number))
                ]
        return tips

    label = f"Parallel coordinates of {', '.join(view.fields)} and {view.metric}"
    return draw("parallel", label, (WIDTH, 380), paint)


def against_metric(view: SweepView) -> str:
    """Draw each swept field against the metric, a dot per trial."""
    columns = min(len(view.fields), MOST_FIELDS_IN_A_ROW)
    lines = -(-len(view.fields) // columns)

    def paint(figure: Figure) -> dict[str, list[str]]:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        tips: dict[str, list[str]] = {}
        for position, axes in enumerate(grid):
            if position >= len(view.fields):
                axes.set_axis_off()
                continue
            name, scale = list(view.fields.items())[position]
            axes.set_title(_axis_name(name, 110 // columns))
            axes.set_xlim(-0.04, 1.04)
            axes.set_ylim(-0.04, 1.04)
            marks = [text for _, text in scale.ticks]
            axes.set_xticks([p for p, _ in scale.ticks], marks)
            if sum(map(len, marks)) > 120 // columns:
                axes.tick_params("x", rotation=30)
            labels = [text if position % columns == 0 else "" for _, text in view.result.ticks]
            axes.set_yticks([p for p, _ in view.result.ticks], labels)
            if position % columns == 0:
                axes.set_ylabel(view.metric)
            tips |= _dots(axes, view, name, position)
        return tips

    return draw("fields", f"Each swept field against {view.metric}", (WIDTH, 270 * lines), paint)


def _dots(axes: Axes, view: SweepView, name: str, position: int) -> dict[str, list[str]]:
    tips = {}
    for number, trial in enumerate(view.trials):
        x = view.fields[name].place(trial.parameters.get(name))
        if number not in view.values or x is None:
            continue
        y = view.result.place(view.values[number]) or 0.0
        color = COLORS[view.choice_color(trial)]
        is_best = trial.id == view.best_id
        axes.plot(
            [x],
            [y],
            linestyle="none",
            marker="o",
            markersize=11 if is_best else 8,
            markerfacecolor=color if trial.state == "finished" else COLORS["paper"],
            markeredgecolor=COLORS["ink"] if is_best else color,
            markeredgewidth=2,
            zorder=5 if is_best else 4,
            clip_on=False,
            gid=f"trial:{number}:{position}",
        )
        tips[f"trial:{number}:{position}"] = [trial_text(trial, view.metric, view.values[number])]
    return tips


def _axis_name(field: str, limit: int) -> str:
    """Return the dotted path, or its last part where the whole does not fit."""
    return field if len(field) <= limit else shortened(field.rpartition(".")[2], limit)


def _upright(axes: Axes, x: int, scale: Scale, name: str, is_last: bool) -> None:
    axes.plot([x, x], [0, 1], color=COLORS["line"], linewidth=1.5, zorder=1)
    axes.text(x, 1.06, name, ha="center", va="bottom", weight="bold")
    side = 1 if is_last else -1
    for place, text in scale.ticks:
        axes.plot([x, x + 0.015 * side], [place, place], color=COLORS["line"], zorder=1)
        align = "left" if is_last else "right"
        axes.text(
            x + 0.03 * side, place, text, ha=align, va="center", color=COLORS["muted"], zorder=6
        )


def _points(trial: Trial, view: SweepView, number: int) -> list[tuple[float, float]]:
    """Places on the axes from the left up to the first that is unknown.

    Trials that share a separate value are spread a little around it, so that each can be followed.
    """
    points: list[tuple[float, float]] = []
    spread = (number / max(len(view.trials) - 1, 1) - 0.5) * 0.5
    for x, (field, scale) in enumerate(view.fields.items()):
        place = scale.place(trial.parameters.get(field))
        if place is None:
            return points
        points.append((x, place + spread / len(scale.choices) if scale.choices else place))
    if number in view.values:
        points.append((len(view.fields), view.result.place(view.values[number]) or 0.0))
    return points


def _trial_curve(
    axes: Axes, points: list[tuple[float, float]], number: int, step: int | None, is_best: bool
) -> None:
    """Draw a trial's curve, and over it a wide unseen one that is easy to point at."""
    corners, codes = [points[0]], [Outline.MOVETO]
    for (x, y), (next_x, next_y) in pairwise(points):
        middle = (x + next_x) / 2
        corners += [(middle, y), (middle, next_y), (next_x, next_y)]
        codes += [Outline.CURVE4] * 3
    outline = Outline(corners, [int(code) for code in codes])
    color = COLORS["bad"] if step is None else COLORS[f"seq-{step}"]
    looks = [(3.5 if is_best else 1.8, 1.0, "line"), (12.0, 0.0, "hit")]
    for width, alpha, part in looks:
        patch = PathPatch(
            outline,
            facecolor="none",
            edgecolor=color,
            linewidth=width,
            alpha=alpha,
            linestyle="--" if step is None and alpha else "-",
            zorder=4 if is_best else 3,
            gid=f"trial:{number}:{part}",
        )
        axes.add_patch(patch)
