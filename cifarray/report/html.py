"""The page of a report: one HTML file that asks nothing of the network and trusts no text."""

import base64
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cifarray.errors import WorkError
from cifarray.metrics import ranked
from cifarray.report import formats
from cifarray.report.confusion import MOST_NUMBERED, matrix, taken_for, worst_pairs
from cifarray.report.curves import curves, trial_curves
from cifarray.report.inputs import SPLITS, ReportInputs, Trial
from cifarray.report.network import network_size, paint_network, shape_text, solids, totals
from cifarray.report.svg import COLORS, draw
from cifarray.report.sweep_plots import SweepView, against_metric, parallel
from cifarray.report.tables import ClassRow
from cifarray.spec.load import to_yaml
from cifarray.spec.quantity import written_bytes
from cifarray.spec.sweep import SweepSpec

MOST_PAIRS = 20
MOST_MISTAKES = 48
LARGEST_SIDE = 160
"""Pixels; larger images are scaled down so that a page stays small."""


@dataclass(frozen=True)
class Track:
    """The part of 0 to 1 that intervals are shown on, in whole tenths."""

    low: float
    high: float

    @classmethod
    def around(cls, intervals: Sequence[Sequence[float] | None]) -> "Track":
        """Return the shortest track that contains every interval."""
        bounds = [bound for interval in intervals for bound in interval or ()] or [0.0, 1.0]
        return cls(math.floor(10 * min(bounds)) / 10, math.ceil(10 * max(bounds)) / 10)

    def place(self, share: float) -> float:
        """Return the position of a share, in percent of the track's width."""
        return round(100 * (share - self.low) / (self.high - self.low), 3)


def render(
    content: Mapping[str, Any],
    inputs: ReportInputs,
    counts: NDArray[np.int64],
    classes: Sequence[ClassRow],
) -> str:
    """Return the page as HTML; `content` is what report.json says."""
    pairs = worst_pairs(counts, MOST_PAIRS)
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=content,
            inputs=inputs,
            dataset=inputs.dataset,
            style=Markup(_file("page.css")),
            script=Markup(script),
            script_digest=digest,
            track=Track.around([content[split]["top1_interval"] for split in SPLITS]),
            curves=Markup(curves(inputs.history, inputs.best_epoch)),
            sweep=_sweep(inputs),
            epochs=inputs.history,
            network=_network(inputs),
            matrix=matrix(counts, inputs.dataset),
            # Of many classes the shades of the counts show it already.
            shares=matrix(counts, inputs.dataset, normalized=True)
            if len(counts) <= MOST_NUMBERED
            else None,
            pairs=pairs,
            classes=classes,
            taken_for=taken_for(counts),
            mistakes=[(m, Markup(png_address(m.image))) for m in inputs.mistakes[:MOST_MISTAKES]],
            job_yaml=to_yaml(inputs.spec.job),
            hardware=dict(_rows(inputs.hardware)),
        )
    )


def png_address(image_HWC: NDArray[np.uint8]) -> str:
    """Return a data: address of the image, of 1 or 3 channels."""
    if image_HWC.ndim != 3 or image_HWC.shape[2] not in (1, 3) or image_HWC.dtype != np.uint8:
        raise WorkError(
            "a picture requires uint8 of height, width and 1 or 3 channels,"
            f" not {image_HWC.dtype} of shape {image_HWC.shape}"
        )
    pixels = image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _network(inputs: ReportInputs) -> dict[str, Any] | None:
    """Return the network's picture and layers; None if they were not recorded."""
    if not inputs.layers:
        return None
    height, width, channels = inputs.input_shape
    drawn = solids(inputs.layers, (channels, height, width))
    label = f"The network {inputs.spec.job.model.name}"
    parameters, trainable = totals(inputs.layers)
    return {
        "picture": Markup(
            draw("network", label, network_size(drawn), lambda f: paint_network(f, drawn, COLORS))
        ),
        "layers": [(layer, shape_text(layer.output_shape)) for layer in inputs.layers],
        "parameters": parameters,
        "trainable": trainable,
    }


def _sweep(inputs: ReportInputs) -> dict[str, Any] | None:
    """Return the content of the page's part on the sweep; None for a run that is not a sweep."""
    sweep, trials = inputs.spec.job.sweep, inputs.sweep_trials
    if sweep is None:
        return None
    view = SweepView.of(trials, sweep, inputs.best_trial_id)
    best = next((trial for trial in trials if trial.id == inputs.best_trial_id), None)
    states = [trial.state for trial in trials]
    rungs = _rungs(sweep, max((trial.epochs for trial in trials), default=0))
    return {
        "spec": sweep,
        "best": best,
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "epochs": sum(trial.epochs for trial in trials),
        "parallel": Markup(parallel(view)),
        "against_metric": Markup(against_metric(view)),
        "curves": Markup(trial_curves(trials, inputs.best_trial_id, sweep.metric, rungs)),
        "rungs": rungs,
        "trials": _ranked(trials, sweep.metric),
        "color_field": view.color_field,
        "choices": view.fields[view.color_field].choices if view.color_field else (),
    }


def _ranked(trials: Sequence[Trial], metric: str) -> list[tuple[int, Trial, Any]]:
    """Return (position, trial, best) with the best trial first and those without a value last."""
    rows = [(number, trial, trial.best(metric)) for number, trial in enumerate(trials)]
    without = [row for row in rows if row[2] is None]
    return [*ranked(rows, metric, lambda row: row[2] and row[2].value), *without]


def _rungs(sweep: SweepSpec, longest: int) -> list[int]:
    """Return the epochs at which asha may stop a trial."""
    if sweep.scheduler.name != "asha":
        return []
    rungs, rung = [], sweep.scheduler.grace_epochs
    while rung <= longest:
        rungs.append(rung)
        rung *= sweep.scheduler.factor
    return rungs


def _rows(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Write a record's fields for a person; sizes by their unit."""
    for key, value in values.items():
        name = str(key).replace("_", " ")
        if str(key).endswith("_bytes") and isinstance(value, int | float):
            yield name.removesuffix(" bytes"), written_bytes(value, binary=True)
        else:
            yield name, formats.value(value)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cifarray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "percent": formats.percent,
        "interval": formats.interval,
        "number": formats.number,
        "loss": formats.loss,
        "count": formats.count,
        "moment": formats.moment,
        "duration": formats.duration,
        "value": formats.value,
        "metric": formats.metric,
        "shortened": formats.shortened,
    }
    return environment


def _finalize(shown: Any) -> Any:
    """Replace control characters in all text that is not the package's own markup."""
    if isinstance(shown, str) and not isinstance(shown, Markup):
        return "\n".join(formats.printable(line) for line in shown.split("\n"))
    return shown


def _file(name: str) -> str:
    return (resources.files("cifarray.report") / "templates" / name).read_text(encoding="utf-8")
