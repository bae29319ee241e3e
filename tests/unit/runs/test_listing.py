"""All runs of a store are listed fast, newest first, whatever state they were left in."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cifarray.runs import Run, list_runs, summaries
from cifarray.store import Store
from tests.unit.runs.conftest import run_spec


def test_an_empty_store_lists_no_runs(store: Store) -> None:
    assert list_runs(store) == summaries(store) == []


def test_two_hundred_runs_are_summarised_in_seconds(store: Store) -> None:
    ids = [
        f"train-digits-2611{day:02}-10{minute:02}00-abcd"
        for day in range(1, 11)
        for minute in range(20)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run_id: Run.create(store, run_spec(run_id)), ids))
    begin = time.monotonic()
    found = summaries(store)
    assert time.monotonic() - begin < 10
    assert [summary.run.id for summary in found] == sorted(ids, reverse=True)
    assert {summary.status.state for summary in found} == {"pending"}
    assert all(summary.size_bytes > 500 for summary in found)
    begin = time.monotonic()
    assert [run.id for run in list_runs(store)] == sorted(ids, reverse=True)
    assert time.monotonic() - begin < 5


def test_the_newest_comes_first_whatever_its_job(new_run: Callable[..., Run]) -> None:
    store = new_run("a-261123-100000-0000").store
    new_run("z-261122-100000-0000")
    new_run("m-261124-100000-0000")
    assert [run.id[0] for run in list_runs(store)] == ["m", "a", "z"]


def test_a_damaged_run_does_not_hide_the_others(new_run: Callable[..., Run]) -> None:
    good, bad = new_run("a-261123-100000-0000"), new_run("b-261123-100000-0000")
    store = good.store
    store.write(bad.key("status.json"), b"\0")
    store.write("runs/NOT-AN-ID/file", b"")
    store.write("runs/a-file", b"")
    states = {summary.run.id: summary.status.state for summary in summaries(store)}
    assert states == {good.id: "pending", bad.id: "failed"}
