"""Deadlines, pauses and calls that repeat in the background."""

import itertools
import random
import threading
import time

import pytest

from cifarray.timers import Deadline, every, pauses


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_is_over_once_its_seconds_have_passed() -> None:
    clock = Clock()
    deadline = Deadline(2.0, clock)
    assert (deadline.left_s, deadline.is_over) == (2.0, False)
    assert deadline.allows(1.9) and not deadline.allows(2.0)
    clock.now += 1.5
    assert deadline.allows(0.4) and not deadline.allows(0.6)
    clock.now += 5.0
    assert (deadline.left_s, deadline.is_over) == (0.0, True)
    assert not deadline.allows(0.0)


def test_looks_come_at_once_after_each_pause_and_once_when_the_time_is_up() -> None:
    clock = Clock()
    deadline = Deadline(2.0, clock)
    looks = 0
    for _ in deadline.looks(0.0):
        looks += 1
        clock.now += 0.7
    assert looks == 3
    assert list(deadline.looks(0.0)) == [None], "one look at least"


def test_pauses_follow_their_steps_and_leave_the_global_generator_alone() -> None:
    before = random.getstate()
    found = list(itertools.islice(pauses((0.2, 1.0)), 200))
    assert 0.15 <= found[0] <= 0.25
    assert all(0.75 <= pause_s <= 1.25 for pause_s in found[1:])
    assert len(set(found)) == 200
    assert list(itertools.islice(pauses((0.2, 1.0), jitter=0.0), 3)) == [0.2, 1.0, 1.0]
    assert random.getstate() == before


def test_a_call_repeats_while_the_block_runs_and_not_after_it() -> None:
    called = threading.Semaphore(0)
    with every(0.01, lambda: called.release(), "a test"):
        for _ in range(3):
            assert called.acquire(timeout=10)
    while called.acquire(blocking=False):
        pass
    assert not called.acquire(timeout=0.1)


@pytest.mark.parametrize(
    ("at_once", "at_end", "calls"), [(False, False, 0), (True, False, 1), (False, True, 1)]
)
def test_a_block_shorter_than_the_pause_sees_only_the_calls_at_its_ends(
    at_once: bool, at_end: bool, calls: int
) -> None:
    called: list[None] = []
    with every(60.0, lambda: called.append(None), "a test", at_once=at_once, at_end=at_end):
        deadline = Deadline(10.0)
        while at_once and not called and not deadline.is_over:
            time.sleep(0.01)
    assert len(called) == calls


def test_a_call_that_returns_false_ends_the_loop_and_no_call_comes_at_the_end() -> None:
    called: list[None] = []

    def call() -> bool:
        called.append(None)
        return len(called) < 3

    with every(0.0, call, "ends itself", at_end=True):
        deadline = Deadline(10.0)
        while any(thread.name == "ends itself" for thread in threading.enumerate()):
            assert not deadline.is_over
            time.sleep(0.01)
    assert len(called) == 3


def test_a_call_that_hangs_delays_the_blocks_end_by_no_more_than_is_allowed() -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait(60)

    began = time.monotonic()
    with every(0.0, hang, "a test", join_s=0.1):
        assert hangs.wait(10)
    assert time.monotonic() - began < 30
    goes_on.set()
