"""The evaluation of NetworkPolicies, against what Kubernetes' documentation says of each field."""

from typing import Any

import pytest

from tests.unit.kubernetes.network import Endpoint, allowed, selects

HERE = {"kubernetes.io/metadata.name": "here"}
THERE = {"kubernetes.io/metadata.name": "there"}
WEB = Endpoint("web", "here", {"app": "web"}, HERE)
DATA = Endpoint("data", "here", {"app": "data"}, HERE)
FOREIGN_WEB = Endpoint("foreign web", "there", {"app": "web"}, THERE)
OUTSIDE = Endpoint("outside", address="203.0.113.7")


def policy(**spec: Any) -> dict[str, Any]:
    """A NetworkPolicy in namespace here, for all pods unless told otherwise."""
    whole = {"podSelector": {}, **spec}
    return {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "here"}, "spec": whole}


def test_a_pod_that_no_policy_selects_is_open():
    assert allowed([], WEB, DATA, 80)
    only_data = policy(podSelector={"matchLabels": {"app": "data"}}, policyTypes=["Ingress"])
    assert allowed([only_data], OUTSIDE, WEB, 80)
    assert not allowed([only_data], OUTSIDE, DATA, 80)


def test_a_policy_holds_in_its_own_namespace_and_direction_alone():
    no_way_in = policy(policyTypes=["Ingress"])
    assert not allowed([no_way_in], FOREIGN_WEB, DATA, 80)
    assert allowed([no_way_in], DATA, FOREIGN_WEB, 80)
    assert not allowed([policy(policyTypes=["Egress"])], DATA, FOREIGN_WEB, 80)


def test_a_policy_without_types_is_about_ways_in_and_about_ways_out_where_it_has_any():
    assert allowed([policy()], DATA, OUTSIDE, 80)
    assert not allowed([policy()], OUTSIDE, DATA, 80)
    out = policy(egress=[{"ports": [{"port": 443}]}])
    assert allowed([out], DATA, OUTSIDE, 443)
    assert not allowed([out], DATA, OUTSIDE, 80)


def test_policies_add_up():
    refuse = policy(policyTypes=["Ingress"])
    allow = policy(ingress=[{"ports": [{"port": 80}]}])
    assert allowed([refuse, allow], OUTSIDE, DATA, 80)
    assert allowed([allow, refuse], OUTSIDE, DATA, 80)


def test_a_peer_of_both_selectors_has_to_match_both_and_two_peers_either():
    both = {
        "namespaceSelector": {"matchLabels": THERE},
        "podSelector": {"matchLabels": {"app": "x"}},
    }
    either = [{"namespaceSelector": {"matchLabels": THERE}}, {"podSelector": {}}]
    assert not allowed([policy(ingress=[{"from": [both]}])], FOREIGN_WEB, DATA, 80)
    assert allowed([policy(ingress=[{"from": either}])], FOREIGN_WEB, DATA, 80)
    assert allowed([policy(ingress=[{"from": either}])], WEB, DATA, 80)


def test_a_pod_selector_alone_means_the_policy_s_own_namespace():
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    assert allowed([policy(ingress=[{"from": [web]}])], WEB, DATA, 80)
    assert not allowed([policy(ingress=[{"from": [web]}])], FOREIGN_WEB, DATA, 80)


def test_an_address_outside_is_matched_by_blocks_and_by_rules_for_anybody():
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}
    assert allowed([policy(egress=[{"to": [block]}])], DATA, OUTSIDE, 80)
    beyond = Endpoint("beyond", address="203.0.113.200")
    assert not allowed([policy(egress=[{"to": [block]}])], DATA, beyond, 80)
    every_pod: dict[str, Any] = {"namespaceSelector": {}}
    assert not allowed([policy(egress=[{"to": [every_pod]}])], DATA, OUTSIDE, 80)
    assert allowed([policy(egress=[{}])], DATA, OUTSIDE, 80)


@pytest.mark.parametrize(
    ("port", "number", "protocol", "fits"),
    [
        ({"port": 53, "protocol": "UDP"}, 53, "UDP", True),
        ({"port": 53}, 53, "UDP", False),
        ({"protocol": "TCP"}, 9, "TCP", True),
        ({"port": 100, "endPort": 200}, 150, "TCP", True),
        ({"port": 100, "endPort": 200}, 201, "TCP", False),
    ],
)
def test_a_port_has_a_number_or_a_range_and_a_protocol(
    port: dict[str, Any], number: int, protocol: str, fits: bool
):
    assert allowed([policy(ingress=[{"ports": [port]}])], WEB, DATA, number, protocol) is fits


@pytest.mark.parametrize(
    ("operator", "values", "holds"),
    [("In", ["web"], True), ("NotIn", ["web"], False), ("Exists", [], True)],
)
def test_expressions_select_by_a_label(operator: str, values: list[str], holds: bool):
    expression = {"key": "app", "operator": operator, "values": values}
    assert selects({"matchExpressions": [expression]}, WEB.labels) is holds


@pytest.mark.parametrize(
    "spec",
    [
        {"ingress": [{"fro": []}]},
        {"ingress": [{"from": [{"pods": {}}]}]},
        {"ingress": [{"ports": [{"port": "http"}]}]},
        {"podSelector": {"matchLabel": {}}},
    ],
)
def test_what_it_does_not_know_is_an_error_and_not_a_verdict(spec: dict[str, Any]):
    with pytest.raises(ValueError, match=r"unknown fields|by name"):
        allowed([policy(**spec)], WEB, DATA, 80)
