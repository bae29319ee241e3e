"""How the nodes do that pods are on, as the API server says at this moment."""

from typing import Any, Literal, TypeAlias

from cifarray.backends.kubernetes.client import Kube, RefusedError

NodeState: TypeAlias = Literal["ready", "not ready", "silent", "gone", "hidden"]
"""hidden: the caller may not look, as most people may not."""
STATES: dict[str, NodeState] = {"True": "ready", "False": "not ready"}
"""By the status of a node's condition Ready."""


class Nodes:
    """The nodes of a cluster; each is looked at once."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._seen: dict[str, NodeState] = {}

    def state(self, name: str) -> NodeState:
        """How a node does now. Raises: ClusterError."""
        if name not in self._seen:
            self._seen[name] = self._look(name)
        return self._seen[name]

    def _look(self, name: str) -> NodeState:
        try:
            found = self._kube.get("Node", name)
        except RefusedError as error:
            if error.code != 403:
                raise
            return "hidden"
        return "gone" if found is None else _state_of(found)


def _state_of(node: dict[str, Any]) -> NodeState:
    """By its Ready condition, which the node controller sets to Unknown for a silent kubelet."""
    for each in node.get("status", {}).get("conditions") or ():
        if each["type"] == "Ready":
            return STATES.get(each["status"], "silent")
    return "silent"
