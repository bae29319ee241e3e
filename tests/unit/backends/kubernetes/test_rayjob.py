"""A run as a RayJob: whole objects against golden files, names, labels and totals."""

import re
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from cifarray.backends.kubernetes.pods import KUEUE_QUEUE
from cifarray.backends.kubernetes.rayjob import (
    NAME_LENGTH,
    RAY_VERSION,
    label_value,
    rayjob,
    rayjob_name,
    run_policy,
)
from cifarray.spec.load import load_job
from cifarray.spec.run import REQUEST_VARIABLE, RunRequest
from tests.golden_files import Golden
from tests.unit.backends.kubernetes.kube_requests import request

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
GPUS = {
    "workers": 4,
    "gpus_per_worker": 1.0,
    "spot": {"node-kind/spot": "true"},
    "node_selector": {"pool": "a100"},
    "queue": "team-a",
    "image_pull_secret": "registry",
}


def by_variable(manifest: dict[str, Any]) -> dict[str, Any]:
    """A RayJob whose environment is a value per variable, and whose request has no defaults.

    So a new field of a job or a profile touches only the golden files that set it.
    """
    environment = yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])["env_vars"]
    asked = RunRequest.model_validate(yaml.safe_load(environment[REQUEST_VARIABLE]))
    environment[REQUEST_VARIABLE] = asked.model_dump(mode="json", exclude_defaults=True)
    return {**manifest, "spec": {**manifest["spec"], "runtimeEnvYAML": environment}}


def test_a_training_on_cpus_is_the_recorded_rayjob(golden: Golden):
    golden.check_json("kubernetes/rayjob-cpu.json", by_variable(rayjob(request(), 1)))


def test_a_sweep_on_spot_gpus_behind_a_queue_is_the_recorded_rayjob(golden: Golden):
    asked = request("tune-digits-261123-040000-1a2b", load_job("tune-digits"), **GPUS)
    golden.check_json("kubernetes/rayjob-gpu.json", by_variable(rayjob(asked, 3)))


def test_the_policy_of_a_run_is_the_recorded_one(golden: Golden):
    golden.check_json("kubernetes/run-policy.json", run_policy(request(), 1))


def test_the_driver_finds_the_whole_request_in_its_environment():
    asked = request(best_of={"run_id": "a-sweep", "trial_id": "t1", "params": {"train.epochs": 2}})
    environment = yaml.safe_load(rayjob(asked, 1)["spec"]["runtimeEnvYAML"])["env_vars"]
    assert RunRequest.model_validate(yaml.safe_load(environment[REQUEST_VARIABLE])) == asked
    assert all(isinstance(value, str) for value in environment.values())


def test_no_secret_stands_in_a_manifest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-from-everyone")
    assert "hidden-from-everyone" not in str(rayjob(request(), 1))


@pytest.mark.parametrize(
    "run_id", ["a", "train-digits-261123-040000-1a2b", "x" * 63, "a" + "-b" * 31]
)
@pytest.mark.parametrize("submission", [1, 27])
def test_a_name_is_a_dns_1035_label_that_kubernetes_and_kuberay_take(run_id: str, submission: int):
    name = rayjob_name(run_id, submission)
    assert len(name) <= NAME_LENGTH
    assert DNS_1035.fullmatch(name)


def test_names_that_have_to_be_cut_stay_different():
    long = "train-a-network-of-my-own-on-a-dataset-of-my-own-"
    names = {rayjob_name(long + end, number) for end in ("a", "b", "c") for number in (1, 2, 11)}
    assert len(names) == 9


@pytest.mark.parametrize(
    "text", ["my job", "-x-", "é", "a" * 80, "a/b", "tune-digits", "ends-" * 13]
)
def test_any_text_becomes_a_label(text: str):
    value = label_value(text)
    assert len(value) <= 63
    assert LABEL.fullmatch(value)


def test_the_time_limits_of_the_profile_are_totals_over_all_retries():
    spec = rayjob(request(max_wait_s=900, max_run_s=3000, retries=2), 1)["spec"]
    assert (spec["backoffLimit"], spec["preRunningDeadlineSeconds"]) == (2, 300)
    assert spec["activeDeadlineSeconds"] == 1000


def test_a_run_behind_a_queue_waits_suspended():
    manifest = rayjob(request(queue="team-a"), 1)
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"][KUEUE_QUEUE] == "team-a"
    assert "suspend" not in rayjob(request(), 1)["spec"]


@pytest.mark.parametrize(("given", "region"), [(None, "us-east-1"), ("eu-north-1", "eu-north-1")])
def test_the_pods_ask_for_the_buckets_region(given: str | None, region: str):
    cluster = rayjob(request(store={"uri": "s3://b", "region": given}), 1)["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "AWS_REGION", "value": region} in container["env"]


def test_only_workers_go_to_spot_nodes():
    cluster = rayjob(request(**GPUS), 1)["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    (group,) = cluster["workerGroupSpecs"]
    worker = group["template"]["spec"]
    assert "nodeSelector" not in head
    assert worker["nodeSelector"] == {"pool": "a100", "node-kind/spot": "true"}
    assert {"key": "node-kind/spot", "operator": "Exists"} in worker["tolerations"]


def test_the_number_of_workers_may_differ_from_the_profiles():
    asked = request().model_copy(update={"workers": 5})
    (group,) = rayjob(asked, 1)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (5, 5, 5)


def test_the_ray_version_is_the_one_that_is_installed():
    assert version("ray") == RAY_VERSION
