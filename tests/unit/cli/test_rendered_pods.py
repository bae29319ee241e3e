"""What a profile says of its pods, as `submit --dry-run` and `cluster render` print them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.conftest import Type
from tests.unit.kubernetes import manifest_policy, policy
from tests.unit.kubernetes.ray_pods import pods_of

Spec = dict[str, Any]
STORE = {"uri": "s3://cifarray", "endpoint": "http://cifarray-store:7070"}
TOLERATION = {"key": "team", "operator": "Exists"}
MODES = ["rayjob", "ray-jobs"]


def resources(pod: Spec) -> Spec:
    found: Spec = pod["containers"][0]["resources"]
    return found


def shared_memory(pod: Spec) -> str:
    sizes = {each["name"]: each["emptyDir"].get("sizeLimit") for each in pod["volumes"]}
    return str(sizes["shm"])


FIELDS: dict[str, tuple[Spec, Callable[[Spec], Any], Any]] = {
    "worker_cpu": ({"worker_cpu": "3"}, lambda pod: resources(pod)["requests"]["cpu"], "3"),
    "worker_cpu_limit": (
        {"worker_cpu_limit": "9"},
        lambda pod: resources(pod)["limits"]["cpu"],
        "9",
    ),
    "worker_memory": (
        {"worker_memory": "21Gi"},
        lambda pod: resources(pod)["limits"]["memory"],
        "21Gi",
    ),
    "worker_shm": ({"worker_shm": "3Gi"}, shared_memory, "3Gi"),
    "node_selector": (
        {"node_selector": {"zone": "b"}},
        lambda pod: pod["nodeSelector"],
        {"zone": "b"},
    ),
    "tolerations": ({"tolerations": [TOLERATION]}, lambda pod: pod["tolerations"], [TOLERATION]),
    "spot": (
        {"spot": {"cheap": "yes"}},
        lambda pod: (pod["nodeSelector"], pod["tolerations"]),
        ({"cheap": "yes"}, [{"key": "cheap", "operator": "Exists"}]),
    ),
    "scheduler_name": ({"scheduler_name": "ours"}, lambda pod: pod["schedulerName"], "ours"),
    "gpus_per_worker": (
        {"gpus_per_worker": 2},
        lambda pod: resources(pod)["limits"]["nvidia.com/gpu"],
        "2",
    ),
}
"""Of each field what is given, where it shows in a worker's pod, and what is there then."""


@pytest.fixture
def profile_file(tmp_path: Path) -> Callable[..., str]:
    """Writes a profile of fields of its own or of its kubernetes section."""

    def write(mode: str, **fields: Any) -> str:
        own = {"gpus_per_worker": fields.pop("gpus_per_worker", 0), "cpus_per_worker": 1}
        section = {"mode": mode, "image": "registry.example/team/cifarray:1.2.3", **fields}
        path = tmp_path / f"{mode}.yaml"
        path.write_text(
            yaml.safe_dump({"kind": "kubernetes", "store": STORE, **own, "kubernetes": section})
        )
        return str(path)

    return write


def rendered(typed: Type, mode: str, profile: str) -> list[Spec]:
    """The objects from which the pods of the profile's runs come."""
    if mode == "ray-jobs":
        shown = typed("cluster", "render", "--cluster", profile)
        assert shown.code == 0, shown.err
        return list(yaml.safe_load_all(shown.out))
    shown = typed("submit", "train-digits", "--dry-run", "--json", "--cluster", profile)
    assert shown.code == 0, shown.err
    objects: list[Spec] = json.loads(shown.out)
    return objects


def worker_pods(documents: list[Spec]) -> list[Spec]:
    """The pods of all worker groups."""
    specs = [each["spec"] for each in documents if each["kind"] == "RayCluster"]
    specs += [each["spec"]["rayClusterSpec"] for each in documents if each["kind"] == "RayJob"]
    groups = [group for spec in specs for group in spec["workerGroupSpecs"]]
    assert groups
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_profile_is_in_every_workers_pod(
    typed: Type, profile_file: Callable[..., str], mode: str, field: str
) -> None:
    given, seen, value = FIELDS[field]
    pods = worker_pods(rendered(typed, mode, profile_file(mode, **given)))
    assert [seen(pod) for pod in pods] == [value] * len(pods)


@pytest.mark.parametrize("field", ["gang", "queue", "retries", "keep_ended_s"])
def test_a_field_that_the_mode_does_not_read_is_refused(
    typed: Type, profile_file: Callable[..., str], field: str
) -> None:
    value = {"gang": "kueue", "queue": "team-a"}.get(field, 5)
    for words in (["cluster", "render"], ["submit", "train-digits", "--dry-run"]):
        refused = typed(*words, "--cluster", profile_file("ray-jobs", **{field: value}))
        assert refused.code == 2
        assert f"mode ray-jobs does not use kubernetes.{field}; leave it out" in refused.err


def test_the_queue_of_a_rayjob_is_its_label(typed: Type, profile_file: Callable[..., str]) -> None:
    *_, job = rendered(typed, "rayjob", profile_file("rayjob", queue="team-a"))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"


@pytest.mark.parametrize("gpus", [0, 1])
def test_the_raycluster_of_a_profile_keeps_to_the_rules_and_holds_a_run(
    typed: Type, profile_file: Callable[..., str], gpus: int
) -> None:
    path = profile_file("ray-jobs", gpus_per_worker=gpus, ray_cluster="team")
    documents = rendered(typed, "ray-jobs", path)
    assert policy.findings(pods_of(documents)) == []
    assert manifest_policy.findings(documents) == []
    (cluster,) = (each for each in documents if each["kind"] == "RayCluster")
    assert cluster["metadata"]["name"] == "team"
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert (group["groupName"], group["replicas"]) == ("gpu" if gpus else "cpu", 0)
    assert group["maxReplicas"] >= 2
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    assert head["serviceAccountName"] == "cifarray", "the autoscaler in it has rights of its own"
    assert "autoscaler-token" in {each["name"] for each in head["volumes"]}
    assert "ray.io/cluster: cifarray" not in yaml.safe_dump_all(documents)
    (role,) = (
        each
        for each in documents
        if (each["kind"], each["metadata"]["name"]) == ("Role", "cifarray")
    )
    scaled = [rule for rule in role["rules"] if "rayclusters" in rule["resources"]]
    assert [rule["resourceNames"] for rule in scaled] == [["team"]]


def test_in_mode_rayjob_the_raycluster_is_as_it_travels(
    typed: Type, profile_file: Callable[..., str]
) -> None:
    path = profile_file("rayjob", worker_cpu="3")
    shown = typed("cluster", "render", "--cluster", path)
    (cluster,) = (each for each in yaml.safe_load_all(shown.out) if each["kind"] == "RayCluster")
    assert [group["groupName"] for group in cluster["spec"]["workerGroupSpecs"]] == ["cpu", "gpu"]


def test_workers_that_leave_no_cpu_in_a_pod_of_the_raycluster_are_refused(
    typed: Type, profile_file: Callable[..., str]
) -> None:
    path = profile_file("ray-jobs", worker_cpu="1")
    refused = typed("cluster", "render", "--cluster", path)
    assert refused.code == 2
    assert "cpus_per_worker 1 leaves no CPU for Ray Data: Ray counts 1 CPUs" in refused.err
