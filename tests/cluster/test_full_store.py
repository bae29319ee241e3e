"""A store whose volume fills up under a run: the run waits for space, and ends as any other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MANIFESTS
from tests.cluster.kubectl import NAMESPACE, Kubectl, until
from tests.cluster.runs import PROFILE, STARTS_S, Runs, profile_file, same_figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
IN = ("-n", NAMESPACE)
STORE = "app.kubernetes.io/name=cifarray-store"
HEAD = "ray.io/cluster=cifarray,ray.io/node-type=head"
VOLUMES = "/spec/template/spec/volumes/0"
OPEN_STORE = """
import os
from cifarray.errors import StoreError
from cifarray.store import Store
store = Store.open(os.environ["CIFARRAY_STORE"], os.environ["AWS_ENDPOINT_URL_S3"]).patient(1.0)
"""
FILL = """
number = 0
try:
    while True:
        store.write(f"filler/{number:04d}", bytes(1 << 16))
        number += 1
except StoreError as error:
    print(error)
store.delete([f"filler/{number - 1:04d}"])  # a status fits, and no checkpoint
"""
MAKE_ROOM = 'store.delete_folder("filler")'


def in_the_head(kubectl: Kubectl, code: str) -> str:
    """What a few lines print that are carried out in the long-lived RayCluster's head."""
    [head] = kubectl.pods(HEAD)
    words = ("exec", head["metadata"]["name"], "-c", "ray-head", "--")
    return kubectl(*IN, *words, "python", "-c", OPEN_STORE + code)


@contextmanager
def small_volume(kubectl: Kubectl) -> Iterator[None]:
    """The store keeps its data in 24 MiB of memory within; what it held before comes back."""
    [deployment] = kubectl.json(*IN, "get", "deployment", "-l", STORE)["items"]
    before = deployment["spec"]["template"]["spec"]["volumes"][0]
    small = {"name": before["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "24Mi"}}
    try:
        mount(kubectl, small)
        make_bucket(kubectl)
        yield
    finally:
        mount(kubectl, before)


def mount(kubectl: Kubectl, volume: dict[str, Any]) -> None:
    """Let the store's pod have this volume, and wait until it is the only one."""
    patch = yaml.safe_dump([{"op": "replace", "path": VOLUMES, "value": volume}])
    kubectl(*IN, "patch", "deployment", "cifarray-store", "--type=json", "-p", patch)
    kubectl(*IN, "rollout", "status", "deployment", "cifarray-store", "--timeout=180s")
    until("the store", lambda: kubectl.is_ready(STORE))


def make_bucket(kubectl: Kubectl) -> None:
    """Carry the bucket's Job out again."""
    objects = yaml.safe_load_all(MANIFESTS.read_text())
    [job] = [o for o in objects if o["metadata"]["labels"].get("cifarray/role") == "bucket"]
    name = job["metadata"]["name"]
    kubectl(*IN, "delete", "job", name, "--ignore-not-found")
    kubectl(*IN, "apply", "-f", "-", stdin=yaml.safe_dump(job))
    kubectl(*IN, "wait", "job", name, "--for=condition=complete", "--timeout=180s")


@pytest.mark.parametrize("mode", ["rayjob", "ray-jobs"])
def test_a_run_waits_for_space_on_the_stores_volume(
    runs: Runs,
    kubectl: Kubectl,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    name: str,
    mode: str,
):
    def waits_for() -> str:
        return str((runs.status(name)["progress"] or {}).get("waits_for") or "")

    with small_volume(kubectl):
        runs.cifarray("data", "prepare", "digits", "--cluster", PROFILE)
        runs.begin(name, on=profile_file(tmp_path, mode=mode))
        assert "No space left" in in_the_head(kubectl, FILL)
        until("the status to name the cause", lambda: "space in the store" in waits_for(), STARTS_S)
        in_the_head(kubectl, MAKE_ROOM)
        assert same_figures(runs.wait_until_finished(name), undisturbed)
        assert runs.status(name)["attempts"] == 1
