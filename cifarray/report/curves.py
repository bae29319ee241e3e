"""Figures over epochs: loss, accuracy and learning rate of a run, and the trials of a sweep."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cifarray.report import formats
from cifarray.report.inputs import Trial, series
from cifarray.report.svg import COLORS, draw

WIDTH = 1000
"""CSS pixels; the page is that wide."""

MOST_DOTS = 40
MOST_TIPS = 300

History = Sequence[Mapping[str, Any]]


def curves(history: History, best_epoch: int) -> str:
    """Draw loss, top-1, learning rate and seconds by epoch."""
    panels = (
        ("Loss", (("train.running_loss", "quiet"), ("validation.loss", "accent"))),
        ("Top-1", (("train.running_top1", "quiet"), ("validation.top1", "accent"))),
        ("Learning rate", (("lr", "muted"),)),
        ("Seconds per epoch", (("epoch_s", "muted"),)),
    )

    def paint(figure: Figure) -> dict[str, list[str]]:
        tips: dict[str, list[str]] = {}
        for axes, (title, lines) in zip(figure.subplots(1, 4), panels, strict=True):
            axes.set_title(title)
            _epochs(axes, history)
            axes.set_xlabel("epoch")
            for key, color in lines:
                _line(axes, key, series(history, key), color, tips)
            axes.axvline(best_epoch, color=COLORS["good"], linewidth=1.5, dashes=(2, 3), zorder=1)
            _value_axis(
                axes, lines[-1][0], [v for key, _ in lines for _, v in series(history, key)]
            )
        return tips

    return draw("curves", "Loss, top-1, learning rate and seconds by epoch", (WIDTH, 270), paint)


def trial_curves(
    trials: Sequence[Trial], best_id: str | None, metric: str, rungs: Sequence[int]
) -> str:
    """Draw the sweep's metric by epoch, a line per trial; rungs are where trials may be stopped."""

    def paint(figure: Figure) -> dict[str, list[str]]:
        axes = figure.subplots()
        _epochs(axes, [record for trial in trials for record in trial.history])
        for rung in rungs:
            axes.axvline(rung, color=COLORS["line"], linewidth=1.5, dashes=(2, 3), zorder=1)
        tips: dict[str, list[str]] = {}
        values = []
        for number, trial in enumerate(trials):
            points = trial.series(metric)
            values += [value for _, value in points]
            if points:
                gid = f"trial:{number}:curve"
                _trial(axes, gid, points, trial.state, trial.id == best_id)
                tips[gid] = [trial_text(trial, metric, points[-1][1])]
        axes.set_xlabel("epoch")
        _value_axis(axes, metric, values)
        return tips

    return draw("trials", f"{metric} by epoch for every trial", (WIDTH, 340), paint)


def trial_text(trial: Trial, metric: str, value: float | None) -> str:
    """Describe a trial for a hover text."""
    settings = [f"{field} {formats.value(value)}" for field, value in trial.parameters.items()]
    epochs = "1 epoch" if trial.epochs == 1 else f"{trial.epochs} epochs"
    result = f"{metric} {formats.metric(metric, value)} · {epochs} · {trial.state}"
    return "\n".join([f"trial {trial.id}", *settings, result])


def _trial(
    axes: Axes, gid: str, points: list[tuple[int, float]], state: str, is_best: bool
) -> None:
    color = COLORS["accent" if is_best else "bad" if state == "failed" else "quiet"]
    end = {"finished": "o", "stopped early": "|", "failed": "x"}.get(state, ".")
    axes.plot(
        *zip(*points, strict=True),
        color=color,
        linewidth=2.5 if is_best else 1.5,
        marker=end,
        markersize=6 if end == "o" else 9,
        markeredgewidth=2,
        markeredgecolor=COLORS["cat-1"] if state == "stopped early" else color,
        markevery=[len(points) - 1],
        zorder=4 if is_best else 3,
        gid=gid,
    )


def _line(
    axes: Axes,
    key: str,
    points: list[tuple[int, float]],
    color: str,
    tips: dict[str, list[str]],
) -> None:
    """Draw a line, and on it dots that carry the hover texts: unseen where there are many."""
    if not points:
        return
    axes.plot(*zip(*points, strict=True), color=COLORS[color], zorder=3)
    shown = points[:: math.ceil(len(points) / MOST_TIPS)]
    few = len(points) <= MOST_DOTS
    axes.plot(
        *zip(*shown, strict=True),
        linestyle="none",
        marker="o",
        markersize=4 if few else 8,
        color=COLORS[color],
        alpha=1 if few else 0,
        gid=key,
        zorder=4,
    )
    name = key.replace(".", " ").replace("_", " ")
    tips[key] = [f"epoch {epoch}\n{name} {formats.metric(key, value)}" for epoch, value in shown]


def _epochs(axes: Axes, history: History) -> None:
    """Show whole epochs along x, and leave margins around a single one."""
    epochs = [int(record["epoch"]) for record in history] or [1]
    low, high = min(epochs), max(epochs)
    pad = max(0.5, 0.03 * (high - low)) if high - low < 2 else 0.03 * (high - low)
    axes.set_xlim(low - pad, high + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _value_axis(axes: Axes, key: str, values: Sequence[float]) -> None:
    """Write shares as percent; say so where there is nothing to draw."""
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center")
    elif formats.metric(key, 1.0).endswith("%"):
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
