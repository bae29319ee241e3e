"""One attempt is in charge of a run; an older one that still lives changes nothing any more."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from cifarray.errors import LeaseLostError
from cifarray.runs import Attempt, Run, check_index
from cifarray.runs.metrics_log import write_metrics
from cifarray.store import Store


def test_an_attempt_shows_the_run_as_running_and_its_end(run: Run) -> None:
    attempt = run.start_attempt("host a")
    status = run.status()
    assert (status.state, status.attempts, status.job) == ("running", 1, "train-digits")
    assert status.started_at and status.heartbeat_at
    attempt.heartbeat({"epoch": 1, "epochs": 3}, {"metric": "validation.top1", "value": 0.5})
    attempt.heartbeat()
    status = run.status()
    assert status.progress == {"epoch": 1, "epochs": 3}
    assert status.best == {"metric": "validation.top1", "value": 0.5}
    attempt.close("finished")
    status = run.status()
    assert (status.state, status.error) == ("finished", None)
    assert status.ended_at is not None
    assert status.best == {"metric": "validation.top1", "value": 0.5}


def test_the_next_attempt_has_the_next_number_even_if_the_last_wrote_nothing(run: Run) -> None:
    numbers = [run.start_attempt("a driver").number for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert run.status().attempts == 3


def test_the_number_is_above_every_trace_of_an_attempt(run: Run) -> None:
    run.store.write(run.key("lease.json"), b"damaged")
    run.store.write(run.key("attempts", "4", "metrics.jsonl"), b"")
    assert run.start_attempt("a driver").number == 5


def test_of_attempts_that_begin_together_one_is_in_charge(run: Run) -> None:
    def begin(number: int) -> Attempt | None:
        try:
            return Run.open(run.store, run.id).start_attempt(f"driver {number}")
        except LeaseLostError:
            return None

    with ThreadPoolExecutor(8) as pool:
        attempts = [attempt for attempt in pool.map(begin, range(8)) if attempt]
    assert len({attempt.number for attempt in attempts}) == len(attempts)
    alive = []
    for attempt in attempts:
        try:
            attempt.heartbeat()
            alive.append(attempt.number)
        except LeaseLostError:
            continue
    assert alive == [run.status().attempts]


def test_an_old_attempt_loses_its_lease_and_leaves_the_status_alone(run: Run) -> None:
    old = run.start_attempt("half-dead")
    new = run.start_attempt("its successor")
    new.heartbeat({"epoch": 7})
    before = run.store.read(run.key("status.json"))
    for call in (
        old.heartbeat,
        lambda: old.heartbeat({"epoch": 1}, {"value": 0.1}),
        lambda: old.close("failed", "late"),
    ):
        with pytest.raises(LeaseLostError, match=r"attempt 1 of run .* is no longer in charge"):
            call()
    assert old.lost.is_set()
    assert run.store.read(run.key("status.json")) == before
    assert not run.store.exists(f"{old.prefix}/files.json")
    new.close("finished")
    assert run.status().state == "finished"


def test_an_old_attempt_that_renewed_just_before_the_change_writes_no_status(run: Run) -> None:
    old = run.start_attempt("slow")
    old._renew()  # it is paused here, between its lease and its status
    new = run.start_attempt("its successor")
    before = run.store.read(run.key("status.json"))
    with pytest.raises(LeaseLostError):
        old._write(state="failed", error="late")
    assert run.store.read(run.key("status.json")) == before
    new.heartbeat()


def test_an_attempt_that_is_still_copying_keeps_the_run_alive_and_may_fail(run: Run) -> None:
    first = run.start_attempt("half-dead")
    second = run.take_charge("its successor")
    second.heartbeat()
    with pytest.raises(LeaseLostError):
        first.heartbeat()
    assert (run.status().state, run.status().attempts) == ("running", 1)
    second.close("failed", "the store is full")
    assert (run.status().state, run.status().error) == ("failed", "the store is full")


def test_an_older_attempt_that_finishes_while_the_next_one_copies_has_finished_the_run(
    run: Run,
) -> None:
    first = run.start_attempt("at its end")
    first._renew()  # it is paused here, between its lease and its status
    second = run.take_charge("its successor")
    first._write(state="finished")
    for call in (second.begin, second.heartbeat):
        with pytest.raises(LeaseLostError):
            call()
    assert (run.status().state, run.status().attempts) == ("finished", 1)


def test_a_lease_that_was_written_though_no_answer_came_is_still_held(run: Run) -> None:
    attempt = run.start_attempt("behind a bad line")
    before = attempt._lease.tag
    attempt.heartbeat()
    attempt._lease.tag = before  # what is known when the answer is lost
    attempt.heartbeat()
    run.start_attempt("its successor")
    with pytest.raises(LeaseLostError):
        attempt.heartbeat()


def test_a_stop_and_an_attempt_that_begins_at_the_same_moment_agree_on_the_end(run: Run) -> None:
    for _ in range(10):
        with ThreadPoolExecutor(1) as pool:
            stop = pool.submit(run.mark_stopped, "stopped by a person")
            try:
                attempt = run.start_attempt("just then")
                stop.result()
                attempt.heartbeat()
            except LeaseLostError:
                stop.result()
                assert run.status().state == "stopped"
            else:
                assert run.status().state == "running"


def test_a_stop_from_outside_ends_an_attempt_that_still_lives(run: Run) -> None:
    attempt = run.start_attempt("was thought dead")
    run.mark_stopped("stopped by a person")
    with pytest.raises(LeaseLostError):
        attempt.heartbeat()
    assert (run.status().state, run.status().error) == ("stopped", "stopped by a person")
    again = run.start_attempt("resumed")
    assert again.number == 2
    assert (run.status().state, run.status().error) == ("running", None)


def test_what_others_write_into_the_status_stays(run: Run) -> None:
    attempt = run.start_attempt("a driver")
    run.set_cluster({"profile": "local"})
    attempt.heartbeat({"epoch": 2})
    status = run.status()
    assert (status.cluster, status.progress) == ({"profile": "local"}, {"epoch": 2})


def test_a_new_attempt_keeps_the_first_start_and_the_best(run: Run) -> None:
    first = run.start_attempt("one")
    first.heartbeat({"epoch": 2}, {"metric": "validation.top1", "value": 0.7})
    first.close("failed", "the node went")
    assert run.status().error == "the node went"
    started = run.status().started_at
    run.start_attempt("two")
    status = run.status()
    assert (status.started_at, status.error, status.ended_at) == (started, None, None)
    assert status.best == {"metric": "validation.top1", "value": 0.7}


def test_keep_alive_beats_until_it_ends(run: Run) -> None:
    attempt = run.start_attempt("a driver")
    first = run.store.read(run.key("lease.json"))
    with attempt.keep_alive(every_s=0.05):
        wait_until(lambda: run.store.read(run.key("lease.json")) != first)
        attempt.heartbeat({"epoch": 1})
    last = run.store.read(run.key("lease.json"))
    time.sleep(0.2)
    assert run.store.read(run.key("lease.json")) == last
    attempt.close("finished")


def test_keep_alive_notices_that_the_lease_is_lost(run: Run) -> None:
    old = run.start_attempt("half-dead")
    with old.keep_alive(every_s=0.05):
        assert not old.lost.is_set()
        run.start_attempt("its successor")
        assert old.lost.wait(10)
    assert run.status().attempts == 2


def test_the_lease_says_who_is_in_charge(run: Run) -> None:
    run.start_attempt("host a, process 12")
    lease = json.loads(run.store.read(run.key("lease.json")))
    assert (lease["attempt"], lease["owner"]) == (1, "host a, process 12")


def test_a_closed_attempt_has_an_index_that_its_growing_log_does_not_break(run: Run) -> None:
    attempt = run.start_attempt("a driver")
    write_metrics(run.store, attempt.prefix, [{"epoch": 0}])
    run.store.write(f"{attempt.prefix}/driver.log", b"one line\n")
    attempt.close("finished")
    run.store.write(f"{attempt.prefix}/driver.log", b"one line\nand a last one\n")
    assert check_index(run.store, attempt.prefix) == []


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_an_attempt_that_ends_badly_says_so_and_still_indexes_its_files(
    run: Run, state: Literal["failed", "stopped"]
) -> None:
    attempt = run.start_attempt("a driver")
    write_metrics(run.store, attempt.prefix, [{"epoch": 0}])
    attempt.close(state, "the reason")
    status = run.status()
    assert (status.state, status.error) == (state, "the reason")
    assert check_index(run.store, attempt.prefix) == []


def test_nothing_recorded_holds_credentials(store: Store, finished: Run) -> None:
    import os

    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    for entry in store.list(finished.prefix):
        assert secret not in store.read(entry.key), entry.key


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
