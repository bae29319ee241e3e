"""Evaluates NetworkPolicies: may this pod, or this address outside, open that connection?"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]

RULE_FIELDS = {"from", "to", "ports"}
PEER_FIELDS = {"podSelector", "namespaceSelector", "ipBlock"}
PORT_FIELDS = {"port", "protocol", "endPort"}


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection: a pod, or an address that is no pod's."""

    name: str
    namespace: str | None = None
    """None: outside of the cluster's pods, with an address alone."""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None


def allowed(
    policies: Iterable[Policy], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the source's policies let it out and the target's let it in.

    Raises: ValueError for what this evaluation does not know, such as ports by name.
    """
    policies = list(policies)
    return lets_out(policies, source, target, port, protocol) and lets_in(
        policies, source, target, port, protocol
    )


def lets_out(
    policies: Iterable[Policy], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the policies of the source alone let the connection pass."""
    return _passes(policies, "Egress", source, target, port, protocol)


def lets_in(
    policies: Iterable[Policy], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the policies of the target alone let the connection pass."""
    return _passes(policies, "Ingress", target, source, port, protocol)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    if unknown:
        raise ValueError(f"a selector has unknown fields: {', '.join(sorted(unknown))}")
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions", ()))


def _passes(
    policies: Iterable[Policy],
    direction: str,
    subject: Endpoint,
    peer: Endpoint,
    port: int,
    protocol: str,
) -> bool:
    """A pod that no policy of this direction selects is open in it."""
    if subject.namespace is None:
        return True
    chosen = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == subject.namespace
        and direction in _types(policy["spec"])
        and selects(policy["spec"]["podSelector"], subject.labels)
    ]
    if not chosen:
        return True
    side = "from" if direction == "Ingress" else "to"
    return any(
        _peer_fits(rule.get(side, ()), subject.namespace, peer)
        and _port_fits(rule.get("ports", ()), port, protocol)
        for spec in chosen
        for rule in _known(spec.get(direction.lower(), ()), RULE_FIELDS)
    )


def _types(spec: Mapping[str, Any]) -> list[str]:
    default = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]
    return list(spec.get("policyTypes", default))


def _peer_fits(peers: Iterable[Mapping[str, Any]], namespace: str, other: Endpoint) -> bool:
    """No peers at all means anybody."""
    peers = _known(peers, PEER_FIELDS)
    return not peers or any(_is_peer(peer, namespace, other) for peer in peers)


def _is_peer(peer: Mapping[str, Any], namespace: str, other: Endpoint) -> bool:
    if "ipBlock" in peer:
        return other.address is not None and _in_block(peer["ipBlock"], other.address)
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    where = ipaddress.ip_address(address)
    left_out = any(where in ipaddress.ip_network(each) for each in block.get("except", ()))
    return where in ipaddress.ip_network(block["cidr"]) and not left_out


def _port_fits(ports: Iterable[Mapping[str, Any]], port: int, protocol: str) -> bool:
    """No ports at all means any."""
    ports = _known(ports, PORT_FIELDS)
    if any(not isinstance(each.get("port", 0), int) for each in ports):
        raise ValueError("ports by name are not evaluated; give numbers")
    return not ports or any(
        each.get("protocol", "TCP") == protocol
        and ("port" not in each or each["port"] <= port <= each.get("endPort", each["port"]))
        for each in ports
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    operators = {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }
    return operators[expression["operator"]]


def _known(items: Iterable[Mapping[str, Any]], fields: set[str]) -> list[Mapping[str, Any]]:
    items = list(items)
    unknown = {name for item in items for name in item} - fields
    if unknown:
        raise ValueError(f"a policy has unknown fields: {', '.join(sorted(unknown))}")
    return items
