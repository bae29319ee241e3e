"""Deleting frees what nobody needs any more and nothing else."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.errors import InputError, LeaseLostError
from cifarray.runs import Examined, Run, delete_run, execute_plan, list_runs, plan_prune
from cifarray.runs.status import RunState
from cifarray.store import Store

NewRun = Callable[..., Run]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A local store: that a bucket lists and deletes alike is shown where stores are tested."""
    return Store.open(str(tmp_path / "store"))


def _ended(
    run: Run,
    days_ago: float,
    top1: float | None = None,
    metric: str = "top1",
    state: RunState = "finished",
) -> Run:
    """Make the run one that ended so long ago."""
    at = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
    best = None if top1 is None else {"metric": f"validation.{metric}", "value": top1, "epoch": 1}
    run.change_status(
        lambda status: dataclasses.replace(
            status, state=state, submitted_at=at, ended_at=at, heartbeat_at=at, best=best
        )
    )
    return run


def _add_dataset(store: Store, name: str, digest: str, whole: bool = True) -> str:
    prefix = f"datasets/{name}/{digest[:12]}"
    store.write(f"{prefix}/train/part-00000.parquet", b"rows")
    if whole:
        store.write(f"{prefix}/manifest.json", b"{}")
    return prefix


def test_a_deleted_run_leaves_nothing(finished: Run, new_run: NewRun) -> None:
    other = new_run(f"{finished.id}-2")
    delete_run(finished)
    assert [run.id for run in list_runs(finished.store)] == [other.id]
    assert finished.store.list(finished.prefix) == []
    assert other.spec().run_id == other.id


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_live_run_is_refused(run: Run, state: str) -> None:
    now = datetime.now(UTC).isoformat()
    run.change_status(lambda status: dataclasses.replace(status, submitted_at=now))
    if state == "running":
        run.start_attempt("a driver")
    before = run.store.list(run.prefix)
    with pytest.raises(InputError, match=f"run {run.id} is {state}; stop it first with `cifarray"):
        delete_run(run)
    assert run.store.list(run.prefix) == before
    lives = Examined(run, run.status(), "")
    assert plan_prune(run.store, timedelta(0), 0, lambda runs: [lives for _ in runs]).runs == []


def test_a_dead_run_may_go_and_what_is_left_of_its_driver_learns_of_it(run: Run) -> None:
    attempt = run.start_attempt("half-dead")
    dead = Examined(run, run.status(), "its job has ended", attempt=1, tag=attempt._lease.tag)
    delete_run(run, dead)
    with pytest.raises(LeaseLostError):
        attempt.heartbeat()
    assert run.store.list(run.prefix) == []


def test_a_run_that_moves_after_it_was_found_dead_is_not_deleted(run: Run) -> None:
    attempt = run.start_attempt("thought dead")
    found = Examined(run, run.status(), "its job has ended", attempt=1, tag=attempt._lease.tag)
    attempt.heartbeat()
    dead = dataclasses.replace(found, status=run.status())  # as if it moved a moment later
    with pytest.raises(InputError, match=f"run {run.id} is still running; stop it first"):
        delete_run(run, dead)
    attempt.heartbeat()
    assert run.status().state == "running"


def test_a_run_whose_deletion_was_cut_is_still_listed_and_can_be_deleted(finished: Run) -> None:
    for folder in finished.store.folders(finished.prefix):
        finished.store.delete_folder(finished.key(folder))
    (run,) = list_runs(finished.store)
    assert run.status().state == "finished"
    delete_run(Run.open(finished.store, finished.id))
    assert finished.store.list() == []


def test_without_limits_no_run_goes(new_run: NewRun) -> None:
    store = _ended(new_run("a-261123-100000-0000"), 1000).store
    plan = plan_prune(store)
    assert (plan.runs, plan.datasets, plan.remarks, plan.size_bytes) == ([], [], [], 0)


def test_older_runs_go(new_run: NewRun) -> None:
    old = _ended(new_run("a-261123-100000-0000"), 8)
    young = _ended(new_run("a-261123-100000-0001"), 6)
    plan = plan_prune(old.store, older_than=timedelta(days=7))
    assert [summary.run.id for summary in plan.runs] == [old.id]
    assert plan.size_bytes == old.size_bytes()
    assert execute_plan(plan) == []
    assert [run.id for run in list_runs(old.store)] == [young.id]


def test_the_best_of_each_job_stay(new_run: NewRun) -> None:
    values = {"a": (0.1, 0.3, 0.2), "b": (0.5, 0.4)}
    for job, tops in values.items():
        for number, top1 in enumerate(tops):
            _ended(new_run(f"{job}-{number}", job_name=job), 1, top1)
    store = _ended(new_run("a-none", job_name="a"), 1).store
    plan = plan_prune(store, keep_best=1)
    assert sorted(summary.run.id for summary in plan.runs) == ["a-0", "a-2", "a-none", "b-1"]
    plan = plan_prune(store, older_than=timedelta(days=7), keep_best=1)
    assert plan.runs == []
    plan = plan_prune(store, older_than=timedelta(hours=1), keep_best=2)
    assert sorted(summary.run.id for summary in plan.runs) == ["a-0", "a-none"]


def test_of_losses_the_smallest_is_best(new_run: NewRun) -> None:
    for number, loss in enumerate((0.3, 0.1, float("nan"))):
        store = _ended(new_run(f"a-{number}"), 1, loss, "loss").store
    plan = plan_prune(store, keep_best=1)
    assert sorted(summary.run.id for summary in plan.runs) == ["a-0", "a-2"]


def test_a_dataset_that_no_remaining_run_names_goes(new_run: NewRun) -> None:
    old, used, latest = "a" * 64, "b" * 64, "c" * 64
    run = _ended(new_run("user-of-b", digest=used), 1)
    store = run.store
    prefixes = [_add_dataset(store, "digits", digest) for digest in (old, used, latest)]
    store.write("datasets/digits/LATEST", latest.encode())
    plan = plan_prune(store)
    assert [dataset.prefix for dataset in plan.datasets] == [prefixes[0]]
    plan = plan_prune(store, older_than=timedelta(hours=1))
    assert [dataset.prefix for dataset in plan.datasets] == prefixes[:2]
    assert execute_plan(plan) == []
    assert store.folders("datasets/digits") == [latest[:12]]
    assert store.exists("datasets/digits/LATEST")


def test_a_dataset_of_another_name_with_the_same_digest_is_not_the_one_in_use(
    new_run: NewRun,
) -> None:
    store = _ended(new_run("a-run", digest="b" * 64), 1).store
    _add_dataset(store, "digits", "b" * 64)
    other = _add_dataset(store, "cifar10", "b" * 64)
    for name in ("digits", "cifar10"):
        store.write(f"datasets/{name}/LATEST", b"c" * 64)
    assert [dataset.prefix for dataset in plan_prune(store).datasets] == [other]


def test_a_dataset_that_may_still_be_in_the_making_stays(store: Store) -> None:
    _add_dataset(store, "digits", "a" * 64)  # no LATEST yet
    _add_dataset(store, "cifar10", "b" * 64, whole=False)
    store.write("datasets/cifar10/LATEST", b"c" * 64)
    assert plan_prune(store).datasets == []


def test_datasets_stay_while_a_run_cannot_say_which_it_needs(new_run: NewRun) -> None:
    run = _ended(new_run("a-run"), 1)
    store = run.store
    _add_dataset(store, "digits", "a" * 64)
    store.write("datasets/digits/LATEST", b"c" * 64)
    store.write(run.key("job.yaml"), b"{torn")
    plan = plan_prune(store)
    assert plan.datasets == []
    assert "a-run" in plan.remarks[0]


def test_what_has_come_into_use_since_the_question_stays(new_run: NewRun) -> None:
    run = _ended(new_run("a-run", digest="b" * 64), 1, state="failed")
    store = run.store
    prefix = _add_dataset(store, "digits", "a" * 64)
    store.write("datasets/digits/LATEST", b"c" * 64)
    plan = plan_prune(store, older_than=timedelta(hours=1))
    assert len(plan.runs) == len(plan.datasets) == 1
    run.start_attempt("resumed")
    new_run("b-run", digest="a" * 64)
    done: list[str] = []
    remarks = execute_plan(plan, done.append)
    assert done == []
    assert [run.id, prefix] == [
        remark.split()[i] for remark, i in zip(remarks, (1, 0), strict=True)
    ]
    assert store.exists(f"{prefix}/manifest.json")
