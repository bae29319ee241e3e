"""Runs on two nodes of a real cluster, one of which is drained or goes without a word."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kubectl import NAMESPACE, Kubectl, conditions, until
from tests.cluster.runs import GOES_ON_S, STARTS_S, Runs, profile_file, same_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DNS, OPERATOR = "k8s-app=kube-dns", "app.kubernetes.io/component=kuberay-operator"
HEAD = "ray.io/cluster=cifarray,ray.io/node-type=head"
GONE_AFTER_S = 20
"""Pods that tolerate a silent node for no longer: Kubernetes' own 300 s would only cost time."""


def names_of_nodes(kubectl: Kubectl) -> list[str]:
    return [node["metadata"]["name"] for node in kubectl.json("get", "nodes")["items"]]


@contextmanager
def closed(kubectl: Kubectl, *nodes: str) -> Iterator[None]:
    """Let no new pod onto these nodes."""
    for node in nodes:
        kubectl("cordon", node)
    try:
        yield
    finally:
        for node in nodes:
            kubectl.type("uncordon", node)


@pytest.fixture(scope="module")
def spare(kubectl: Kubectl, ready: None) -> str:
    """A node that the cluster, the store and the RayCluster can do without."""
    [store] = kubectl.pods("app.kubernetes.io/name=cifarray-store")
    others = [name for name in names_of_nodes(kubectl) if name != store["spec"]["nodeName"]]
    if not others:
        pytest.skip("the cluster has one node; this takes two")
    node = others[0]
    with closed(kubectl, node):
        for pod in kubectl.json("get", "pods", "--all-namespaces")["items"]:
            owners = [owner["kind"] for owner in pod["metadata"].get("ownerReferences", [])]
            if pod["spec"].get("nodeName") == node and "DaemonSet" not in owners:
                where = pod["metadata"]["namespace"]
                kubectl.type("-n", where, "delete", "pod", pod["metadata"]["name"])
        until("what was on the spare node to be elsewhere", lambda: settled(kubectl))
    return node


def settled(kubectl: Kubectl) -> bool:
    """Whether the cluster's own pods, the operator's and the RayCluster's head are ready."""
    everywhere = kubectl.json("get", "pods", "--all-namespaces")["items"]
    needed = [pod for pod in everywhere if pod["status"]["phase"] not in ("Succeeded", "Failed")]
    return all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in conditions(pod))
        for pod in needed
    ) and kubectl.is_ready(HEAD)


@contextmanager
def only_on(kubectl: Kubectl, node: str) -> Iterator[None]:
    """Let new pods onto this node alone."""
    with closed(kubectl, *(name for name in names_of_nodes(kubectl) if name != node)):
        yield


def nodes_of(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in pods}


def test_two_workers_on_two_nodes_train_what_two_on_one_node_do(
    runs: Runs, spare: str, undisturbed: dict[str, Any], tmp_path: Path, name: str
):
    """Each asks for more than half of a node's CPUs."""
    path = profile_file(tmp_path, worker_cpu="1010m", head_cpu="200m")
    runs.begin(name, on=path)
    assert len(nodes_of(runs.pods(name, "worker"))) == 2
    assert same_figures(runs.wait_until_finished(name), undisturbed)


def test_a_run_on_a_drained_node_goes_on_elsewhere(
    runs: Runs, kubectl: Kubectl, spare: str, undisturbed: dict[str, Any], name: str
):
    with only_on(kubectl, spare):
        runs.begin(name)
    assert nodes_of(runs.pods(name)) == {spare}
    try:
        drain = ("drain", spare, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
        ended = kubectl.type(*drain, "--timeout=180s")
        assert ended.returncode == 0, ended.stderr
        assert same_figures(runs.wait_until_finished(name), undisturbed)
    finally:
        kubectl("uncordon", spare)


def test_the_raycluster_s_head_holds_a_drain_up_until_it_is_deleted(
    kubectl: Kubectl, spare: str, ready: None
):
    [head] = kubectl.pods(HEAD)
    node = head["spec"]["nodeName"]
    drain = ("drain", node, f"--pod-selector={HEAD}", "--delete-emptydir-data")
    try:
        held = kubectl.type(*drain, "--timeout=10s")
        assert held.returncode != 0
        assert "disruption budget" in held.stderr
        kubectl("-n", NAMESPACE, "delete", "pod", head["metadata"]["name"])
        until("the head elsewhere", lambda: kubectl.is_ready(HEAD))
        assert kubectl.type(*drain, "--timeout=60s").returncode == 0
        assert nodes_of(kubectl.pods(HEAD)) != {node}
    finally:
        kubectl("uncordon", node)


def remove(kubectl: Kubectl, node: str) -> None:
    kubectl("delete", "node", node)


def leave_away(kubectl: Kubectl, node: str) -> None:
    """`resume` needs no more."""


def taint(kubectl: Kubectl, node: str) -> None:
    kubectl("taint", "nodes", node, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")


def begin_on(node: str, runs: Runs, kubectl: Kubectl, folder: Path, name: str) -> None:
    """Begin a run all of whose pods are on one node, and do not wait long there once it is gone."""
    tolerations = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": GONE_AFTER_S} for what in ("unreachable", "not-ready")
    ]  # fmt: skip
    with only_on(kubectl, node):
        runs.begin(name, on=profile_file(folder, tolerations=tolerations))
    assert nodes_of(runs.pods(name)) == {node}


def wait_until_named(runs: Runs, name: str, node: str) -> None:
    """Wait until `status` says which node is the cause, and what helps."""
    until("status to name the node", lambda: node in runs.reason(name), STARTS_S)
    assert "out-of-service" in runs.reason(name)


@pytest.mark.parametrize("remedy", [remove, taint])
def test_a_run_goes_on_by_itself_once_its_head_s_node_is_known_to_be_gone(
    runs: Runs,
    kubectl: Kubectl,
    spare: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    name: str,
    remedy: Callable[[Kubectl, str], None],
):
    begin_on(spare, runs, kubectl, tmp_path, name)
    with cut_off(kubectl, spare):
        wait_until_named(runs, name, spare)
        remedy(kubectl, spare)
        assert same_figures(runs.wait_until_finished(name), undisturbed)


@pytest.mark.parametrize("remedy", [leave_away, remove])
def test_a_run_whose_head_s_node_is_gone_for_long_is_lost_until_it_is_resumed(
    runs: Runs,
    kubectl: Kubectl,
    spare: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    name: str,
    remedy: Callable[[Kubectl, str], None],
):
    begin_on(spare, runs, kubectl, tmp_path, name)
    with cut_off(kubectl, spare):
        wait_until_named(runs, name, spare)
        why = runs.wait_until_lost(name, GOES_ON_S)
        assert spare in why
        assert f"`cifarray resume {name}`" in why
        remedy(kubectl, spare)
        assert same_figures(runs.resume(name), undisturbed)


@contextmanager
def cut_off(kubectl: Kubectl, node: str) -> Iterator[None]:
    """Take a node off the network; it is back at the end."""
    command = os.environ.get("CIFARRAY_TEST_NODE")
    if not command:
        pytest.skip("CIFARRAY_TEST_NODE names no command that takes `cut NODE` and `heal NODE`")
    known = kubectl.json("get", "node", node)
    labels = {name: known["metadata"][name] for name in ("name", "labels")}
    afresh = {"apiVersion": "v1", "kind": "Node", "metadata": labels, "spec": known["spec"]}
    subprocess.run([*shlex.split(command), "cut", node], check=True)
    try:
        yield
    finally:
        subprocess.run([*shlex.split(command), "heal", node], check=True)
        kubectl.type("create", "-f", "-", stdin=json.dumps(afresh))  # where a test removed it
        kubectl.type("taint", "nodes", node, "node.kubernetes.io/out-of-service-")
        until("the node to be back", lambda: is_ready_node(kubectl, node))


def is_ready_node(kubectl: Kubectl, node: str) -> bool:
    if node not in names_of_nodes(kubectl):
        return False
    found = kubectl.json("get", "node", node)["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)
