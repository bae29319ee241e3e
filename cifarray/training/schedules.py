"""The learning rate's schedules: pure functions from a step's number to a factor of `optimizer.lr`.

They hold no state, so a resumed run needs only the number of its next step. Steps count from 0;
factor(0) belongs to the first update. A warm-up of w steps rises in a line, (step + 1) / (w + 1),
and the schedule itself begins, at 1, with the first step after it; every duration below counts
from there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cifarray.errors import JobError
from cifarray.spec.job import ScheduleSpec
from cifarray.spec.load import unknown_name

ONECYCLE_RISE = 0.3
"""Share of the steps in which `onecycle` without a warm-up of its own rises (torch's pct_start)."""
ONECYCLE_FIRST = 1 / 25
"""Where that rise begins (torch's div_factor)."""
ONECYCLE_LAST = 1 / 25 / 1e4
"""Where the fall ends unless the job says (torch's final_div_factor)."""
STEP_GAMMA = 0.1


@dataclass(frozen=True)
class Durations:
    """A training in steps: all of it, its warm-up, and one epoch."""

    total_steps: int
    warmup_steps: int
    steps_per_epoch: float


Factor = Callable[[int], float]
"""From a step, counted from the end of the warm-up, to a factor of the learning rate."""


@dataclass(frozen=True)
class ScheduleEntry:
    """A schedule of the registry."""

    build: Callable[[ScheduleSpec, Durations], Factor]
    fields: frozenset[str] = frozenset()
    """The fields of a ScheduleSpec, besides name and warm-up, that it uses."""
    needs: tuple[str, ...] = ()
    """Of these fields one must be given."""


def _constant(spec: ScheduleSpec, durations: Durations) -> Factor:
    return lambda step: 1.0


def _step(spec: ScheduleSpec, durations: Durations) -> Factor:
    epochs = (spec.every_epochs or 0.0) * durations.steps_per_epoch
    every_steps = spec.every_steps or max(1, round(epochs))
    gamma = STEP_GAMMA if spec.gamma is None else spec.gamma
    return lambda step: gamma ** (step // every_steps)


def _exponential(spec: ScheduleSpec, durations: Durations) -> Factor:
    gamma = 1.0 if spec.gamma is None else spec.gamma
    return lambda step: gamma ** (step / durations.steps_per_epoch)


def _inverse_time(spec: ScheduleSpec, durations: Durations) -> Factor:
    decay = spec.decay or 0.0
    return lambda step: 1.0 / (1.0 + decay * step)


def _cosine(spec: ScheduleSpec, durations: Durations) -> Factor:
    last = spec.final_fraction or 0.0
    steps = max(1, durations.total_steps - durations.warmup_steps)
    return lambda step: _anneal(1.0, last, min(step, steps) / steps)


def _onecycle(spec: ScheduleSpec, durations: Durations) -> Factor:
    """Rise, then fall, each along half a cosine; a warm-up takes the place of the rise."""
    last = ONECYCLE_LAST if spec.final_fraction is None else spec.final_fraction
    steps = durations.total_steps - durations.warmup_steps
    peak = 0.0 if durations.warmup_steps else max(0.0, ONECYCLE_RISE * steps - 1)
    end = max(steps - 1, 1)

    def factor(step: int) -> float:
        if step <= peak:
            return _anneal(ONECYCLE_FIRST, 1.0, step / peak if peak > 0 else 1.0)
        return _anneal(1.0, last, min(1.0, (step - peak) / (end - peak)))

    return factor


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, ScheduleEntry] = {
    "constant": ScheduleEntry(_constant),
    "step": ScheduleEntry(
        _step, frozenset({"every_epochs", "every_steps", "gamma"}), ("every_epochs", "every_steps")
    ),
    "exponential": ScheduleEntry(_exponential, frozenset({"gamma"}), ("gamma",)),
    "inverse_time": ScheduleEntry(_inverse_time, frozenset({"decay"}), ("decay",)),
    "cosine": ScheduleEntry(_cosine, frozenset({"final_fraction"})),
    "onecycle": ScheduleEntry(_onecycle, frozenset({"final_fraction"})),
}

WARMUP_FIELDS = frozenset({"warmup_epochs", "warmup_steps"})


def check_schedule(spec: ScheduleSpec) -> None:
    """Refuse an unknown name, a field that the schedule does not use, one that it lacks.

    Raises: JobError.
    """
    if spec.name not in SCHEDULES:
        raise JobError(unknown_name("schedule", spec.name, SCHEDULES))
    entry = SCHEDULES[spec.name]
    given = spec.model_dump(exclude={"name"}, exclude_none=True)
    used = entry.fields | WARMUP_FIELDS
    for field in given:
        if field not in used:
            raise JobError(
                f"schedule {spec.name} does not use schedule.{field}; it uses "
                + ", ".join(sorted(used))
            )
    if entry.needs and not given.keys() & set(entry.needs):
        fields = " or ".join(f"schedule.{field}" for field in entry.needs)
        raise JobError(f"schedule {spec.name} requires {fields}")


def build_schedule(spec: ScheduleSpec, total_steps: int, steps_per_epoch: float) -> Factor:
    """The factor of `optimizer.lr` for each step of a training, steps counted from 0.

    Raises: JobError; also for a warm-up that is longer than the training.
    """
    check_schedule(spec)
    warmup_steps = spec.warmup_steps or round((spec.warmup_epochs or 0.0) * steps_per_epoch)
    if warmup_steps > total_steps:
        raise JobError(
            f"the schedule's warm-up takes {warmup_steps} steps, but the training has only "
            f"{total_steps}; shorten schedule.warmup_epochs (or warmup_steps) or train longer"
        )
    body = SCHEDULES[spec.name].build(
        spec, Durations(total_steps, warmup_steps, float(steps_per_epoch))
    )
    return partial(_warmed_up, body, warmup_steps)


def _warmed_up(body: Factor, warmup_steps: int, step: int) -> float:
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return body(step - warmup_steps)
