"""The domains of a sweep's fields."""

from typing import Any

import pytest
from pydantic import ValidationError

from cifarray.spec.sweep import Domain, SweepSpec


@pytest.mark.parametrize(
    ("fields", "examples"),
    [
        ({"choice": ["sgd", "adam"]}, ("sgd", "adam")),
        ({"grid": [1, 2, 3]}, (1, 2, 3)),
        ({"uniform": [0, 0.7]}, (0.0, 0.7)),
        ({"loguniform": [1e-4, 0.1]}, (1e-4, 0.1)),
        ({"randint": [0, 5]}, (0, 4)),
    ],
)
def test_a_domain_knows_its_kind_and_the_values_that_have_to_be_sound(
    fields: dict[str, Any], examples: tuple[Any, ...]
):
    domain = Domain.model_validate(fields)
    assert domain.kind == next(iter(fields))
    assert domain.examples == examples


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "give one of choice, grid, uniform, loguniform, randint, not none"),
        ({"choice": [1], "grid": [1]}, r"not \['choice', 'grid'\]"),
        (
            {"uniform": [1, 1]},
            r"uniform requires \[low, high\] with low < high, not \[1\.0, 1\.0\]",
        ),
        ({"randint": [4, 2]}, "randint requires"),
        ({"loguniform": [0, 1]}, "loguniform requires bounds above 0"),
        ({"choice": []}, "at least 1 item"),
        ({"uniform": [1]}, "uniform"),
        ({"uniform": [1, 2, 3]}, "uniform"),
        ({"randint": [0.5, 2]}, "randint"),
        ({"gauss": [0, 1]}, "Extra inputs"),
    ],
)
def test_an_unsound_domain_is_refused(fields: dict[str, Any], sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        Domain.model_validate(fields)


def test_a_sweep_varies_something():
    with pytest.raises(ValidationError, match="search random requires a space of at least 1 item"):
        SweepSpec.model_validate({"space": {}})


@pytest.mark.parametrize(
    "fields",
    [
        {"search": "cases"},
        {"search": "cases", "cases": [{"seed": 1}], "space": {"seed": {"choice": [1]}}},
        {"search": "random", "cases": [{"seed": 1}]},
        {"search": "grid", "cases": [{"seed": 1}], "space": {"seed": {"grid": [1]}}},
        {"search": "cases", "cases": [{}]},
    ],
)
def test_cases_stand_in_the_place_of_a_space(fields: dict[str, Any]):
    with pytest.raises(ValidationError, match=r"search .* requires|at least 1 item"):
        SweepSpec.model_validate(fields)


def test_cases_name_every_field_that_any_of_them_varies():
    cases = [{"seed": 1}, {"optimizer.lr": 0.1, "seed": 2}]
    spec = SweepSpec.model_validate({"search": "cases", "cases": cases})
    assert spec.fields == ("seed", "optimizer.lr")
