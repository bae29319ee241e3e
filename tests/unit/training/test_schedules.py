"""The schedules against torch's own, the warm-up, and what is refused."""

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from cifarray.errors import JobError
from cifarray.spec.job import ScheduleSpec
from cifarray.training.schedules import SCHEDULES, build_schedule, check_schedule

TOTAL, PER_EPOCH, LR = 60, 12, 0.4
MINIMAL: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"every_steps": 20},
    "exponential": {"gamma": 0.9},
    "inverse_time": {"decay": 0.05},
    "cosine": {},
    "onecycle": {},
}


def torch_factors(
    make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int = TOTAL
) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about `epoch` in SequentialLR
            scheduler.step() if len(factors) < steps else None
    return factors


def our_factors(steps: int = TOTAL, **fields: Any) -> list[float]:
    factor = build_schedule(ScheduleSpec(**fields), steps, PER_EPOCH)
    return [factor(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("fields", "peer"),
    [
        ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (
            {"name": "step", "every_steps": 7, "gamma": 0.5},
            lambda o: lr_scheduler.StepLR(o, 7, gamma=0.5),
        ),
        ({"name": "step", "every_epochs": 1.5}, lambda o: lr_scheduler.StepLR(o, 18)),
        (
            {"name": "exponential", "gamma": 0.8},
            lambda o: lr_scheduler.ExponentialLR(o, gamma=0.8 ** (1 / PER_EPOCH)),
        ),
        (  # https://keras.io/api/optimizers/#learning-rate-decay--scheduling, of before Keras 2.11
            {"name": "inverse_time", "decay": 0.05},
            lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + 0.05 * step)),
        ),
        ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL)),
        (
            {"name": "cosine", "final_fraction": 0.1},
            lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL, eta_min=0.1 * LR),
        ),
        (
            {"name": "onecycle"},
            lambda o: lr_scheduler.OneCycleLR(o, LR, TOTAL, cycle_momentum=False),
        ),
        (
            {"name": "onecycle", "final_fraction": 0.01},
            lambda o: lr_scheduler.OneCycleLR(
                o, LR, TOTAL, final_div_factor=4, cycle_momentum=False
            ),
        ),
    ],
)
def test_a_schedule_is_torchs(fields: dict[str, Any], peer: Callable[..., Any]):
    assert our_factors(**fields) == pytest.approx(torch_factors(peer), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "peer"),
    [
        ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL - 9)),
        ({"name": "step", "every_steps": 11}, lambda o: lr_scheduler.StepLR(o, 11)),
    ],
)
def test_a_warm_up_is_torchs_linear_one_with_the_schedule_after_it(
    fields: dict[str, Any], peer: Callable[..., Any]
):
    def warmed(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 10, total_iters=9)
        return lr_scheduler.SequentialLR(optimizer, [rise, peer(optimizer)], milestones=[9])

    ours = our_factors(**fields, warmup_epochs=0.75)
    assert ours == pytest.approx(torch_factors(warmed), rel=1e-9, abs=1e-12)
    assert our_factors(**fields, warmup_steps=9) == ours


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_rises_in_a_line_to_its_peak_in_the_warm_up(name: str):
    factors = our_factors(name=name, warmup_steps=4, **MINIMAL[name])
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(factors) == 1.0
    assert all(a >= b for a, b in pairwise(factors[4:]))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_the_shortest_trainings_have_a_sound_learning_rate(name: str, steps: int):
    for warmup in range(steps + 1):
        factors = our_factors(steps, name=name, warmup_steps=warmup, **MINIMAL[name])
        assert all(0.0 <= factor <= 1.0 for factor in factors)
        assert max(factors) > 0.0


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_gives_the_same_factor_whatever_was_asked_before(name: str):
    spec = ScheduleSpec(name=name, **MINIMAL[name])
    forward = our_factors(name=name, **MINIMAL[name])
    resumed = build_schedule(spec, TOTAL, PER_EPOCH)
    assert [resumed(step) for step in reversed(range(TOTAL))] == forward[::-1]


def test_onecycle_ends_at_its_final_fraction():
    assert our_factors(name="onecycle", final_fraction=0.2)[-1] == pytest.approx(0.2)
    assert our_factors(name="onecycle", final_fraction=0.2, warmup_steps=5)[-1] == pytest.approx(
        0.2
    )


def test_a_warm_up_that_is_longer_than_the_training_is_refused():
    with pytest.raises(JobError, match="takes 61 steps, but the training has only 60"):
        build_schedule(ScheduleSpec(warmup_steps=61), TOTAL, PER_EPOCH)
    with pytest.raises(JobError, match=r"shorten schedule\.warmup_epochs"):
        build_schedule(ScheduleSpec(name="cosine", warmup_epochs=6), TOTAL, PER_EPOCH)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin'; .*did you mean cosine"),
        ({"name": "cosine", "gamma": 0.5}, "cosine does not use schedule.gamma; it uses"),
        ({"name": "constant", "final_fraction": 0.5}, "does not use schedule.final_fraction"),
        ({"name": "step"}, r"step requires schedule\.every_epochs or schedule\.every_steps"),
        ({"name": "exponential"}, "exponential requires schedule.gamma"),
        ({"name": "inverse_time"}, "inverse_time requires schedule.decay"),
        ({"name": "exponential", "gamma": 0.5, "every_steps": 2}, "does not use"),
    ],
)
def test_a_wrong_schedule_is_refused_in_one_sentence(fields: dict[str, Any], sentence: str):
    with pytest.raises(JobError, match=sentence):
        check_schedule(ScheduleSpec(**fields))
