"""The rule of death: evidence, or a heartbeat that was watched for long enough and did not move."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.errors import InputError
from cifarray.runs import (
    Attempt,
    Evidence,
    Run,
    Status,
    cause_of_death,
    delete_run,
    examine,
    lease,
    plan_prune,
    refuse_live,
)
from cifarray.runs.lease import Holder
from cifarray.runs.liveness import NO_EVIDENCE, HeartbeatWatch, lease_evidence, look_s
from cifarray.store import Store
from cifarray.store.layout import LEASE_FILE
from tests.unit.runs.conftest import run_spec

DEAD, ALIVE = Evidence(dead="its job has ended"), Evidence(alive="its job is running")
DOUBT = Evidence(doubt="the dashboard does not answer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


class Clock:
    """Time that passes only while somebody sleeps, and what happens meanwhile."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, list[float]()
        self.meanwhile: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        self.meanwhile()


def no_evidence(run: Run, status: Status) -> Evidence:
    return NO_EVIDENCE


@pytest.mark.parametrize(
    ("state", "evidence", "unmoved_s", "dead"),
    [
        ("running", DEAD, None, True),
        ("pending", DEAD, None, True),
        ("running", DOUBT, None, False),
        ("running", DOUBT, 46.0, True),
        ("running", ALIVE, 600.0, False),
        ("pending", NO_EVIDENCE, 600.0, False),
        ("finished", DEAD, 600.0, False),
        ("failed", DEAD, None, False),
    ],
)
def test_a_run_is_dead_by_evidence_or_by_a_heartbeat_that_was_watched(
    state: str, evidence: Evidence, unmoved_s: float | None, dead: bool
) -> None:
    status = Status(state, heartbeat_at="2020-01-01T00:00:00+00:00")  # type: ignore[arg-type]
    assert bool(cause_of_death(status, evidence, unmoved_s)) is dead


def test_a_lease_that_a_stop_took_away_is_the_end_of_a_running_attempt_alone(run: Run) -> None:
    run.start_attempt("a driver")
    assert lease_evidence(run.status(), run.read_heartbeat()[0]) == NO_EVIDENCE
    lease.take_away(run.store, run.key(LEASE_FILE))
    holder = run.read_heartbeat()[0]
    assert lease_evidence(run.status(), holder).dead
    assert lease_evidence(Status("pending"), holder) == NO_EVIDENCE, "it was asked for again"


def test_a_watch_that_was_interrupted_begins_anew() -> None:
    clock = Clock()
    watch = HeartbeatWatch(longest_gap_s=10.0, clock=clock.now)
    seen = []
    for step in (0.0, 5.0, 5.0, 600.0, 5.0):
        clock.time += step
        seen.append(watch.see("a", "tag"))
    assert seen == [0.0, 5.0, 10.0, 0.0, 5.0]
    assert watch.see("a", "another") == 0.0


def test_what_a_lease_says_of_its_interval_is_believed_within_reason(run: Run) -> None:
    for said, believed in ((2, 2.0), (0, 15.0), (-1, 15.0), ("x", 15.0), (1e9, 120.0)):
        content = {"attempt": 1, "owner": "a", "heartbeat_s": said}
        run.store.write_json(run.key(LEASE_FILE), content)
        holder, _ = run.read_heartbeat()
        assert holder.heartbeat_s == believed
    assert look_s(Holder()) == 45.0


def test_a_heartbeat_that_does_not_move_is_watched_for_three_intervals(run: Run) -> None:
    clock, said = Clock(), list[str]()
    run.start_attempt("frozen")
    (found,) = examine([run], no_evidence, said.append, clock.now, clock.sleep)
    assert found.is_over and found.cause == f"no heartbeat for {clock.time:.0f} s"
    assert 45 < clock.time < 55
    assert said == [f"watching the heartbeat of {run.id} for 45 s ..."]
    delete_run(run, found)


def test_a_heartbeat_that_moves_ends_the_watch_and_saves_the_run(run: Run) -> None:
    clock = Clock()
    attempt = run.start_attempt("a driver")
    clock.meanwhile = lambda: attempt.heartbeat() if 14 < clock.time < 19 else None
    (found,) = examine([run], no_evidence, clock=clock.now, sleep=clock.sleep)
    assert not found.is_over and clock.time < 25
    with pytest.raises(
        InputError, match=r"is running; stop it first with .*its heartbeat is alive"
    ):
        refuse_live(found)


def test_certain_knowledge_either_way_needs_no_watch(run: Run) -> None:
    clock = Clock()
    run.start_attempt("a driver")
    for evidence in (DEAD, ALIVE):
        (found,) = examine([run], lambda *_, e=evidence: e, clock=clock.now, sleep=clock.sleep)  # type: ignore[misc]
        assert found.is_over is bool(evidence.dead)
    assert clock.slept == []


def test_a_command_that_was_stopped_while_it_watched_watches_on(run: Run) -> None:
    """What stopped it may have stopped the driver too."""
    clock = Clock()
    attempt = run.start_attempt("on the same machine")

    def meanwhile() -> None:
        if len(clock.slept) == 2:
            clock.time += 600.0
        elif len(clock.slept) == 6:
            attempt.heartbeat()

    clock.meanwhile = meanwhile
    (found,) = examine([run], no_evidence, clock=clock.now, sleep=clock.sleep)
    assert not found.is_over


def test_many_runs_are_watched_at_once(store: Store) -> None:
    clock, said = Clock(), list[str]()
    runs = [Run.create(store, run_spec(f"run-{number}")) for number in range(5)]
    attempts: list[Attempt] = [run.start_attempt("a driver") for run in runs]
    clock.meanwhile = lambda: attempts[3].heartbeat()
    plan = plan_prune(
        store,
        keep_best=0,
        examine_runs=lambda given: examine(given, no_evidence, said.append, clock.now, clock.sleep),
    )
    assert sorted(plan.dead) == ["run-0", "run-1", "run-2", "run-4"]
    assert clock.time < 55
    assert said == ["watching the heartbeat of 5 runs for 45 s ..."]


def test_a_driver_that_says_its_last_word_meanwhile_is_believed(run: Run) -> None:
    attempt = run.start_attempt("a driver")

    def evidence(run: Run, status: Status) -> Evidence:
        attempt.close("failed", "its own word")  # and then its job ends
        return DEAD

    (found,) = examine([run], evidence)
    assert (found.status.state, found.status.error, found.cause) == ("failed", "its own word", "")
