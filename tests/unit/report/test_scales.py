"""Where swept values stand on their axes."""

import pytest

from cifarray.report.sweep_plots import domain_scale, linear_scale, metric_scale, ranks
from cifarray.spec.sweep import Domain


def test_a_loguniform_field_is_spread_by_its_logarithm():
    scale = domain_scale(Domain(loguniform=(1e-4, 1e-1)))
    assert scale.place(1e-4) == pytest.approx(0.0)
    assert scale.place(1e-3) == pytest.approx(1 / 3)
    assert scale.place(1e-1) == pytest.approx(1.0)
    assert [text for _, text in scale.ticks] == ["0.0001", "0.001", "0.01", "0.1"]


def test_a_log_scale_within_one_decade_names_its_ends():
    scale = domain_scale(Domain(loguniform=(0.02, 0.05)))
    assert [text for _, text in scale.ticks] == ["0.02", "0.05"]


def test_uniform_and_randint_are_spread_by_value():
    assert domain_scale(Domain(uniform=(0.0, 0.8))).place(0.2) == pytest.approx(0.25)
    whole = domain_scale(Domain(randint=(1, 5)))
    assert whole.place(4) == pytest.approx(1.0)
    assert [text for _, text in whole.ticks] == ["1", "2", "3", "4"]


def test_choices_are_spread_evenly_and_equal_ones_share_a_place():
    scale = domain_scale(Domain(choice=("sgd", "adam", "sgd")))
    assert scale.choices == ("sgd", "adam")
    assert (scale.place("sgd"), scale.place("adam")) == (0.25, 0.75)
    assert domain_scale(Domain(grid=(None, 0.5, (0.1, 0.2)))).place([0.1, 0.2]) == 5 / 6


@pytest.mark.parametrize("value", [0.9, -0.1, "text", None, True])
def test_what_does_not_belong_on_an_axis_has_no_place(value: object):
    assert linear_scale(0.0, 0.5).place(value) is None


def test_the_metrics_axis_is_written_as_percent_only_for_shares():
    assert any("%" in text for _, text in metric_scale("validation.top1", [0.2, 0.9]).ticks)
    assert not any("%" in text for _, text in metric_scale("validation.loss", [0.2, 0.9]).ticks)


def test_one_value_or_none_still_makes_an_axis():
    assert metric_scale("validation.top1", [0.7]).place(0.7) == pytest.approx(0.5)
    assert metric_scale("validation.top1", []).ticks


def test_ranks_go_from_worst_to_best_and_equal_values_share_one():
    assert ranks({0: 0.1, 1: 0.9, 2: 0.5, 3: 0.9}, "max", 7) == {0: 0, 1: 6, 2: 3, 3: 6}
    assert ranks({0: 0.1, 1: 0.9, 2: 0.5}, "min", 7) == {0: 6, 1: 0, 2: 3}
    assert ranks({4: 0.3}, "max", 7) == {4: 0}
