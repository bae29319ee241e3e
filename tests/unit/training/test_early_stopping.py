"""Early stopping waits for a better value, and no longer than it was told to."""

import math
from typing import Any

import pytest

from cifarray.spec.job import EarlyStoppingSpec
from cifarray.training.loop import should_stop


def records_of(metric: str, *values: float) -> list[dict[str, Any]]:
    return [{metric: value} for value in values]


@pytest.mark.parametrize(
    ("metric", "values", "rule", "stops"),
    [
        ("validation.top1", (), {}, False),
        ("validation.top1", (0.5, 0.6), {}, False),
        ("validation.top1", (0.5, 0.5), {}, False),
        ("validation.top1", (0.5, 0.5, 0.5), {}, True),
        ("validation.top1", (0.5, 0.4, 0.6, 0.6), {}, False),
        ("validation.top1", (0.5, 0.6, 0.6, 0.55), {}, True),
        ("validation.loss", (0.5, 0.4, 0.3), {}, False),
        ("validation.loss", (0.5, 0.6, 0.7), {}, True),
        ("validation.top1", (0.5, 0.51, 0.52), {"min_delta": 0.05}, True),
        ("validation.top1", (0.5, 0.53, 0.56), {"min_delta": 0.05}, False),
        ("validation.loss", (0.5, 0.49, 0.48), {"min_delta": 0.05}, True),
        ("validation.top1", (0.5, 0.5), {"patience_epochs": 1}, True),
        ("validation.top1", (math.nan, 0.5, 0.6), {}, False),
    ],
)
def test_early_stopping_waits_for_a_better_value(
    metric: str, values: tuple[float, ...], rule: dict[str, Any], stops: bool
):
    spec = EarlyStoppingSpec.model_validate({"patience_epochs": 2, "metric": metric, **rule})
    assert should_stop(records_of(metric, *values), spec) is stops


def test_without_a_rule_nothing_is_stopped():
    assert should_stop(records_of("validation.top1", *[0.5] * 50), None) is False
