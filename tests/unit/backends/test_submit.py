"""The job that carries a run out: its command line, its id, and what it is told."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from cifarray.backends.environment import JOB_CONFIG, driver_command
from cifarray.backends.submit import give_up, launch
from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.store import Access, Store
from tests.loopback import answering
from tests.unit.backends.clusters import given_node, own_node
from tests.unit.runs.conftest import run_spec

PROFILE = Profile(name="mine", kind="local")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a"))


def test_the_driver_replaces_the_shell_that_starts_it() -> None:
    store = StoreSpec(uri="s3://bucket/with space; and 'quotes'", endpoint="http://127.0.0.1:9000")
    words = shlex.split(driver_command("a-run", store, here=True))
    assert words == [
        "exec", sys.executable, "-m", "cifarray.driver", "a-run",
        "--store", store.uri, "--endpoint", "http://127.0.0.1:9000",
    ]  # fmt: skip
    assert shlex.split(driver_command("a-run", store, here=False))[1] == "python"


def test_the_driver_is_told_the_region_of_the_bucket() -> None:
    store = Store.open("s3://bucket", None, Access("eu-north-1")).spec
    assert driver_command("a-run", store).endswith("--store s3://bucket --region eu-north-1")


def test_an_attempt_takes_the_next_number_and_an_id_that_the_cluster_does_not_know(
    run: Run,
) -> None:
    run.start_attempt("the first").close("failed", "the first attempt failed")
    run.store.write(run.key("attempts", "1", "metrics.jsonl"), b"")
    known = {"/api/jobs/a-2", "/api/jobs/a-2.2"}
    submitted: list[str] = []

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        method, _, path = request.partition(" ")
        if method == "POST":
            submitted.append(run.status().state)
        found = method == "POST" or path in known
        return (200, {}, b'{"status": "FAILED"}') if found else (404, {}, b"")

    with answering(answer) as address:
        job_id = launch(run, given_node(address))
    assert job_id == "a-2.3"
    assert submitted == ["pending"], "the run waits for its attempt before the job is submitted"
    status = run.status()
    assert status.error is None and status.ended_at is None
    assert status.heartbeat_at is None, "of the next attempt nothing has been heard yet"
    assert (status.cluster or {})["job_id"] == "a-2.3"


def test_a_node_that_is_busy_takes_no_driver_beside_its_job(run: Run) -> None:
    busy = b'[{"submission_id": "other-1", "status": "RUNNING"}]'
    with answering(lambda request: (200, {}, busy)) as address:
        cluster = own_node(address)
        with pytest.raises(ClusterError, match="busy with job other-1"):
            cluster.enter(run)


def test_a_driver_in_this_process_is_told_its_node_and_the_process_is_left_as_it_is(
    run: Run,
) -> None:
    before = dict(os.environ)
    told = given_node("http://127.0.0.1:1").enter(run)
    assert dict(os.environ) == before
    assert told["RAY_ADDRESS"] == "127.0.0.1:1"
    workers = json.loads(told[JOB_CONFIG])["runtime_env"]["env_vars"]
    assert workers.items() <= told.items()
    assert run.status().state == "pending"


def test_runs_that_no_job_will_carry_out_are_closed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    failed, stopped = (Run.create(store, run_spec(name)) for name in ("a", "b"))
    give_up([failed], ClusterError("the node did not start"))
    give_up([stopped], KeyboardInterrupt())
    assert failed.status().state == "failed"
    assert "the node did not start" in (failed.status().error or "")
    assert stopped.status().state == "stopped"


def test_a_run_that_was_not_opened_for_a_job_stays_as_it_is_when_none_can_be_begun(
    run: Run,
) -> None:
    attempt = run.start_attempt("a driver")
    give_up([run], ClusterError("the node did not start"))
    assert run.status().state == "running"
    attempt.heartbeat()
    attempt.close("failed", "its own word")
    give_up([run], KeyboardInterrupt())
    assert (run.status().state, run.status().error) == ("failed", "its own word")


def test_a_run_that_somebody_else_submitted_at_the_same_moment_stays_queued(run: Run) -> None:
    queued = b'{"submission_id": "a-1", "status": "PENDING"}'
    with answering(lambda request: (200, {}, queued)) as address:
        run.set_cluster(given_node(address).record("a-1"))
        mine = Profile(name="mine", kind="local", address="127.0.0.1:1", dashboard=address)
        give_up([run], ClusterError("the cluster has a job a-1 already"), mine)
    assert run.status().state == "pending"
