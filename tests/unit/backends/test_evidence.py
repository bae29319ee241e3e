"""What is learned of a run's driver here and from its cluster, and what `resume` makes of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.local.processes import this_process
from cifarray.backends.observe import EvidenceCollector, observe
from cifarray.runs import Run, examine
from cifarray.runs.status import RunState
from cifarray.spec.profile import Profile
from cifarray.store import Store
from tests.loopback import answering
from tests.unit.backends.clusters import given_node, own_node
from tests.unit.runs.conftest import run_spec

OURS = own_node("http://127.0.0.1:9")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a-run"))


def show_as(run: Run, state: RunState, record: dict[str, Any] | None) -> None:
    run.change_status(lambda status: replace(status, state=state, cluster=record))


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_run_whose_node_has_ended_is_over_and_can_be_resumed_at_once(
    run: Run, state: RunState
) -> None:
    show_as(run, state, OURS.record("a-run-1"))
    (found,) = examine([run], EvidenceCollector().evidence, sleep=_never)
    assert found.cause == "the Ray node of this machine that it ran on has ended"
    assert observe(run, run.status()).state == "lost"
    assert run.status().state == state


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_run_that_has_ended_by_its_own_word_can_be_resumed(run: Run, state: RunState) -> None:
    show_as(run, state, OURS.record("a-run-1"))
    (found,) = examine([run], EvidenceCollector().evidence, sleep=_never)
    assert found.is_over and not found.cause


def test_a_process_that_lives_is_believed_though_its_node_seems_to_have_ended(run: Run) -> None:
    run.take_charge("a driver", this_process()).begin()
    run.set_cluster(OURS.record("a-run-1"))
    (found,) = examine([run], EvidenceCollector().evidence, sleep=_never)
    assert not found.is_over and "is running" in found.evidence.alive


@pytest.fixture
def dashboard() -> Iterator[tuple[str, list[str]]]:
    """A cluster of the user's that says that its job runs, and what it was asked."""
    asked: list[str] = []

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(request)
        job = {"submission_id": "a-run-1", "status": "RUNNING"}
        return 200, {}, json.dumps([job] if request.endswith("/jobs/") else job).encode()

    with answering(answer) as address:
        yield address, asked


@pytest.mark.parametrize("many", [False, True])
def test_a_job_that_runs_is_evidence_of_life_before_anything_is_done(
    run: Run, dashboard: tuple[str, list[str]], many: bool
) -> None:
    show_as(run, "running", given_node(dashboard[0], "h:1").record("a-run-1"))
    mine = Profile(name="mine", kind="local", address="h:1", dashboard=dashboard[0])
    (found,) = examine([run], EvidenceCollector(mine, many=many).evidence, sleep=_never)
    assert found.evidence.alive == "job a-run-1 is running"


def test_whoever_looks_at_a_run_sends_nothing_to_an_address_that_its_record_names(
    run: Run, dashboard: tuple[str, list[str]]
) -> None:
    show_as(run, "running", given_node(dashboard[0], "h:1").record("a-run-1"))
    run.change_status(lambda status: replace(status, heartbeat_at="2020-01-01T00:00:00+00:00"))
    assert observe(run, run.status()).state == "running"
    assert dashboard[1] == []


def _never(seconds: float) -> None:
    raise AssertionError("what is known for certain needs no second look")
