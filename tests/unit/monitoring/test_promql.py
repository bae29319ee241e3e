"""What the tests of alerts and dashboard rely on: no metric of an expression is overlooked."""

from tests.unit.monitoring.promql import Selector, grouping_labels, selectors


def test_every_metric_is_found_and_nothing_else():
    expression = (
        'max by (run, trial) (a_ratio{trial="x and y", run=~"$run"}) > 3 * sum(rate(b_total[5m]))'
        " + 1e3 and on (run) c offset 1h or absent(d:e) unless time() - 5 > bool f"
    )
    assert list(selectors(expression)) == [
        Selector("a_ratio", ("trial", "run")),
        Selector("b_total", ()),
        Selector("c", ()),
        Selector("d:e", ()),
        Selector("f", ()),
    ]
    assert grouping_labels(expression) == {"run", "trial"}
