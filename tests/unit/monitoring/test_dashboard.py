"""The dashboard is what the script makes of the registry, and names no metric that is not in it."""

import json
from typing import Any

import pytest

from cifarray.metrics import Metric, Panel, scraped
from scripts.dashboard import PATH, dashboard, expression, rendered
from tests.unit.monitoring.promql import grouping_labels, selectors

PANELS: list[dict[str, Any]] = [p for p in dashboard()["panels"] if p["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_committed_file_is_what_the_script_writes():
    assert PATH.read_text(encoding="utf-8") == rendered(), "run: python scripts/dashboard.py"


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_names_registered_metrics_and_their_labels_alone(text: str):
    found = list(selectors(text))
    assert found
    for selector in found:
        metric = scraped()[selector.name]
        assert set(selector.labels) | grouping_labels(text) <= set(metric.labels)


def test_every_registered_metric_is_on_it():
    shown = {selector.name for text in EXPRESSIONS for selector in selectors(text)}
    assert shown == set(scraped())


def test_choices_come_from_registered_metrics():
    variables = [v for v in dashboard()["templating"]["list"] if v["type"] == "query"]
    assert [variable["name"] for variable in variables] == ["job_name", "run", "trial"]
    for variable in variables:
        series, _, label = variable["query"].removeprefix("label_values(")[:-1].rpartition(", ")
        (selector,) = selectors(series)
        assert {label, *selector.labels} <= set(scraped()[selector.name].labels)


def test_a_counter_is_shown_as_its_increase():
    metric = Metric((), "number", "A", Panel("Store", "A"), kind="counter")
    assert expression("a_total", metric) == "max (increase(a_total[5m]))"


def test_no_two_panels_overlap_and_ids_are_unique():
    placed = dashboard()["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    cells = [
        (x, y)
        for panel in placed
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_file_is_json_that_names_no_data_source_of_its_own():
    content = json.loads(PATH.read_text(encoding="utf-8"))
    sources = {panel["datasource"]["uid"] for panel in content["panels"] if "datasource" in panel}
    assert sources == {"${datasource}"}
