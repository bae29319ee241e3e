"""Names, labels and units follow Prometheus' customs, and no two exports share a name."""

import re

import pytest

from cifarray.metrics import RAY_PREFIX, STORE, TRAINING, Metric, scraped

ALL = list((TRAINING | STORE).items())
ENDINGS = {
    "seconds": "_seconds",
    "bytes": "_bytes",
    "ratio": "_ratio",
    "timestamp": "_timestamp_seconds",
    "images_per_second": "_images_per_second",
}
TAKEN = {"job", "instance", "namespace", "pod", "container", "endpoint", "service", "node"}
"""Labels that a scrape sets itself, or that it renames in what it finds."""


@pytest.mark.parametrize(("name", "metric"), ALL, ids=[name for name, _ in ALL])
def test_a_name_says_whose_it_is_and_in_which_unit(name: str, metric: Metric):
    assert re.fullmatch(r"cifarray(_[a-z0-9]+)+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert name.endswith(ENDINGS.get(metric.unit, ""))
    if metric.unit == "number":
        assert not name.endswith(tuple(ENDINGS.values()))


@pytest.mark.parametrize(("name", "metric"), ALL, ids=[name for name, _ in ALL])
def test_no_label_is_one_that_a_scrape_sets(name: str, metric: Metric):
    assert not set(metric.labels) & TAKEN
    assert len(set(metric.labels)) == len(metric.labels)
    assert metric.help and not metric.help.endswith(".")


def test_what_goes_through_ray_is_a_gauge_with_run_and_trial():
    for metric in TRAINING.values():
        assert metric.kind == "gauge"
        assert {"run", "trial", "job_name"} <= set(metric.labels)


def test_every_metric_is_scraped_under_one_name():
    assert len(scraped()) == len(TRAINING) + len(STORE)
    assert {f"{RAY_PREFIX}{name}" for name in TRAINING} | set(STORE) == set(scraped())
