"""A recorded end is the end: the driver of a cluster of its own is stopped, and not retried.

KubeRay retries a RayJob whose Ray job is FAILED; these tests ask a real Jobs API how it ended.
"""

import shlex
import sys
from pathlib import Path

import pytest

from cifarray.backends.base import SubmittedJob
from cifarray.backends.local.node import Node
from cifarray.backends.local.state import read_token
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.runs import Run
from cifarray.spec.run import OWN_JOBS_VARIABLE, REQUEST_VARIABLE
from cifarray.store import Store
from tests.unit.runs.conftest import run_spec

pytestmark = pytest.mark.timeout(180)
FAILED_BEFORE = "a network that fails again each time"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a-run"))


def ended(node: Node, run: Run, name: str, **environment: str) -> SubmittedJob:
    """How the Jobs API says that the run's driver ended."""
    jobs = RayJobs(node.dashboard, read_token())
    words = [sys.executable, "-m", "cifarray.driver", run.id, "--store", run.store.uri]
    jobs.submit(f"exec {shlex.join(words)}", name, environment, {"run_id": run.id})
    for _ in jobs.tail(name):
        pass
    job = jobs.find(name)
    assert job is not None
    return job


def test_a_run_that_is_over_has_its_driver_stopped_and_stays_as_it_was_recorded(
    ray_node: Node, run: Run
):
    run.mark_failed(FAILED_BEFORE)
    job = ended(ray_node, run, "over-1", **{OWN_JOBS_VARIABLE: ray_node.dashboard})
    assert job.status == "STOPPED"
    assert (run.status().state, run.status().error) == ("failed", FAILED_BEFORE)


def test_a_driver_that_fails_records_it_first(ray_node: Node, run: Run):
    """Its dataset is missing, in this cluster as in each further one."""
    job = ended(ray_node, run, "fails-1", **{OWN_JOBS_VARIABLE: ray_node.dashboard})
    assert job.status == "STOPPED"
    assert run.status().state == "failed"
    assert run.status().attempts == 1


def test_a_request_that_no_driver_of_this_image_reads_is_recorded_and_not_retried(
    ray_node: Node, run: Run
):
    given = {OWN_JOBS_VARIABLE: ray_node.dashboard, REQUEST_VARIABLE: "run_id: a-run\nnew: 1\n"}
    assert ended(ray_node, run, "newer-1", **given).status == "STOPPED"
    assert run.status().state == "failed"
    assert "cannot read the submitted run" in str(run.status().error)


def test_a_shared_cluster_says_that_the_job_failed(ray_node: Node, run: Run):
    run.mark_failed(FAILED_BEFORE)
    assert ended(ray_node, run, "shared-1").status == "FAILED"


def test_a_driver_that_cannot_be_stopped_has_failed(ray_node: Node, run: Run):
    run.mark_failed(FAILED_BEFORE)
    nobody = "http://127.0.0.1:9"
    assert ended(ray_node, run, "alone-1", **{OWN_JOBS_VARIABLE: nobody}).status == "FAILED"
