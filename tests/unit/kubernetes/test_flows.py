"""The table of flows in docs/ is what the network policies do, no more and no less."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.kubernetes.flow_table import (
    Flow,
    Row,
    differences,
    expected,
    flows_between,
    others,
    our_actors,
    tables,
)
from tests.unit.kubernetes.network import Policy
from tests.unit.kubernetes.ray_pods import Manifest, pods_of
from tests.unit.kubernetes.shipped import OVERLAYS, everything, overlay

FIRST, FOR_EXTERNAL_STORE = tables()


def rows_of(name: str) -> list[Row]:
    """The rows that hold for an overlay."""
    return [*(FOR_EXTERNAL_STORE if name == "external-s3" else []), *FIRST]


def policies_of(manifests: list[Manifest]) -> list[Policy]:
    """The NetworkPolicies among manifests."""
    return [each for each in manifests if each["kind"] == "NetworkPolicy"]


def flows_of(manifests: list[Manifest]) -> list[Flow]:
    """Every connection to or from a pod of these manifests, in an order that finds holes early."""
    flows = flows_between([*our_actors(pods_of(manifests)), *others()])
    random.Random(0).shuffle(flows)
    return flows


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_policies_do_what_the_table_says_with_two_runs_and_monitoring(name: str):
    manifests = everything(name)
    found = differences(rows_of(name), policies_of(manifests), flows_of(manifests))
    assert list(found) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_policies_do_what_the_table_says_without_any_run(name: str):
    manifests = overlay(name)
    found = differences(rows_of(name), policies_of(manifests), flows_of(manifests))
    assert list(found) == []


def test_each_row_decides_something():
    flows = {name: flows_of(everything(name)) for name in ("gpu", "external-s3")}
    used = {id(expected(rows_of(name), flow)) for name, tried in flows.items() for flow in tried}
    assert [row for row in (*FIRST, *FOR_EXTERNAL_STORE) if id(row) not in used] == []


def test_each_row_but_the_last_says_why():
    assert all(row.why for row in (*FIRST[:-1], *FOR_EXTERNAL_STORE))


def test_two_runs_do_not_meet_at_any_port():
    manifests = everything("gpu")
    between = [
        flow
        for flow in flows_of(manifests)
        if flow.source.run and flow.target.run and flow.source.run != flow.target.run
    ]
    assert len(between) > 50
    assert not any(expected(FIRST, flow).allowed for flow in between)


def without_each_policy(policies: list[Policy]) -> Iterator[tuple[str, list[Policy]]]:
    """The policies with one of them left out."""
    for place, policy in enumerate(policies):
        name = policy["metadata"]["name"]
        yield f"{name} removed", [*policies[:place], *policies[place + 1 :]]


def with_each_widened(policies: list[Policy]) -> Iterator[tuple[str, list[Policy]]]:
    """The policies with one of them letting more through, in every way that one edit can."""
    for place, policy in enumerate(policies):
        for what, wider in widened(policy):
            named = f"{policy['metadata']['name']} with {what}"
            yield named, [*policies[:place], wider, *policies[place + 1 :]]


def widened(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """A policy with a rule for everybody, without ports or peers, or without a label."""
    for direction in policy["spec"]["policyTypes"]:
        wider = copy.deepcopy(dict(policy))
        wider["spec"].setdefault(direction.lower(), []).append({})
        yield f"a rule for everybody ({direction})", wider
    for path in paths(policy["spec"]):
        wider = copy.deepcopy(dict(policy))
        parent: Any = wider["spec"]
        for step in path[:-1]:
            parent = parent[step]
        if (
            path[-1] in ("ports", "from", "to", "podSelector", "namespaceSelector")
            and len(path) > 1
        ):
            parent[path[-1]] = {} if str(path[-1]).endswith("Selector") else []
        elif len(path) > 1 and path[-2] == "matchLabels":
            del parent[path[-1]]
        if wider != policy:
            yield f"less at {'.'.join(map(str, path))}", wider


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for step, inner in items:
        yield (*before, step)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*before, step))


@pytest.mark.parametrize("change", [without_each_policy, with_each_widened])
@pytest.mark.parametrize("name", ["gpu", "external-s3"])
def test_a_policy_that_is_removed_or_widened_is_found(name: str, change: Any):
    manifests = everything(name)
    rows, flows = rows_of(name), flows_of(manifests)
    changes = list(change(policies_of(manifests)))
    assert len(changes) >= len(policies_of(manifests))
    unseen = [what for what, wider in changes if not any(differences(rows, wider, flows))]
    assert unseen == []
