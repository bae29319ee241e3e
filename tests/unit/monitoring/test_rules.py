"""The alerts: complete, in terms of metrics that exist, and firing when they should."""

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarray.cli.main import COMMANDS, GROUPS
from cifarray.metrics import FOREIGN, scraped
from tests.unit.monitoring.promql import grouping_labels, selectors

FILE = Path(__file__).parents[3] / "k8s" / "components" / "monitoring" / "rules.yaml"
CASES = Path(__file__).with_name("alerts.yaml")
MANIFEST: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for g in MANIFEST["spec"]["groups"] for rule in g["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES}
LABELS_OF_OTHERS = {"WorkerId", "namespace", "pod", "container"}
"""Ray's label of a process, and what kube-state-metrics gives a container."""


@pytest.fixture(params=ALERTS)
def rule(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each alert."""
    return ALERTS[request.param]


def test_there_is_an_alert_for_each_thing_that_goes_wrong():
    assert len(RULES) == len(ALERTS)
    assert set(ALERTS) >= {
        "CifarrayRunStalled",
        "CifarrayLossNotFinite",
        "CifarrayDataBound",
        "CifarrayCheckpointTooOld",
        "CifarrayWorkerRestarts",
        "CifarrayStoreFailing",
        "CifarraySweepWithoutProgress",
    }


def test_every_metric_of_an_alert_exists(rule: dict[str, Any]):
    found = list(selectors(rule["expr"]))
    assert found
    for selector in found:
        assert selector.name in scraped() or selector.name in FOREIGN
        if selector.name in scraped():
            assert set(selector.labels) <= set(scraped()[selector.name].labels)


def test_every_label_of_an_alert_exists(rule: dict[str, Any]):
    ours = {
        label
        for selector in selectors(rule["expr"])
        if selector.name in scraped()
        for label in scraped()[selector.name].labels
    }
    assert grouping_labels(rule["expr"]) <= ours | LABELS_OF_OTHERS


def test_a_metric_of_others_that_no_alert_names_is_not_listed():
    named = {selector.name for rule in RULES for selector in selectors(rule["expr"])}
    assert set(FOREIGN) <= named


def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_look_at(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "look_at"}
    assert all(text.strip() for text in rule["annotations"].values())


def test_annotations_name_labels_that_the_expression_leaves(rule: dict[str, Any]):
    text = " ".join(rule["annotations"].values())
    named = set(re.findall(r"\$labels\.(\w+)", text))
    assert named <= grouping_labels(rule["expr"])


def test_commands_in_annotations_exist(rule: dict[str, Any]):
    for words in re.findall(r"`cifarray (\w+)", " ".join(rule["annotations"].values())):
        assert words in COMMANDS or words in GROUPS


def test_no_alert_leads_to_pods_by_a_label_that_those_of_the_long_lived_cluster_lack(
    rule: dict[str, Any],
):
    assert "cifarray/run=" not in " ".join(rule["annotations"].values())


def promtool(task: str, file: Path) -> str:
    """What the tool says of a file that it has to find good; skips where there is none."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool here")
    ended = subprocess.run([tool, task, "rules", file], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_prometheus_takes_the_rules(tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(MANIFEST["spec"]), encoding="utf-8")
    assert f"{len(RULES)} rules found" in promtool("check", rules)


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path):
    spec = copy.deepcopy(MANIFEST["spec"])
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        rule["annotations"] = {"summary": rule["annotations"]["summary"]}  # as the cases have it
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    assert "SUCCESS" in promtool("test", Path(shutil.copy(CASES, tmp_path)))


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    fires: dict[str, set[bool]] = {}
    for case in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]:
        for asked in case["alert_rule_test"]:
            fires.setdefault(asked["alertname"], set()).add(bool(asked.get("exp_alerts")))
    assert fires == {name: {True, False} for name in ALERTS}
