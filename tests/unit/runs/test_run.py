"""A run in the store: made once, found by its beginning, readable wherever its writers died."""

import dataclasses
from collections.abc import Callable

import pytest

from cifarray.errors import InputError, LeaseLostError, RunNotFoundError, StoreError
from cifarray.runs import Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.store import Store
from tests.unit.runs.conftest import run_spec

ID = "train-digits-261123-100000-abcd"


def test_a_new_run_is_pending_and_holds_its_job(store: Store) -> None:
    spec = run_spec(ID)
    run = Run.create(store, spec)
    assert [entry.key for entry in store.list()] == [
        f"runs/{ID}/job.yaml",
        f"runs/{ID}/status.json",
    ]
    again = Run.open(store, ID)
    assert again.spec() == spec
    status = again.status()
    assert (status.state, status.job, status.kind, status.attempts) == (
        "pending",
        "train-digits",
        "train",
        0,
    )
    assert status.submitted_at == spec.submitted_at
    assert run.attempt_numbers() == []
    assert run.metrics() == []
    assert not run.has_report()


def test_a_second_run_of_the_same_id_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match=r"already exists in .*; give another name"):
        Run.create(run.store, run_spec(run.id, digest="ef" * 32))
    assert run.spec() == run_spec(run.id)


def test_an_id_that_could_be_no_folder_is_refused(store: Store) -> None:
    for name in ("../runs", "A", ""):
        with pytest.raises(InputError, match="cannot name a run"):
            Run.create(store, run_spec(name))
    assert store.list() == []


def test_the_unique_beginning_of_an_id_is_enough(new_run: Callable[..., Run]) -> None:
    first, second = new_run("train-digits-261123-100000-aaaa"), new_run("tune-261123-100000-aaab")
    assert Run.open(first.store, "train").id == first.id
    assert Run.open(first.store, "tu").id == second.id
    with pytest.raises(RunNotFoundError, match=r"matches 2 runs: train.*, tune"):
        Run.open(first.store, "t")
    longer = new_run(f"{first.id}-2")
    assert Run.open(first.store, first.id).id == first.id
    assert Run.open(first.store, longer.id).id == longer.id


def test_an_unknown_id_names_its_neighbors(run: Run) -> None:
    with pytest.raises(RunNotFoundError, match=f"did you mean {run.id}"):
        Run.open(run.store, run.id.replace("abcd", "abce"))
    for name in ("", "../..", f"{run.id}/..", "x\x1b[2J"):
        with pytest.raises(RunNotFoundError):
            Run.open(run.store, name)


def test_a_store_without_runs_says_how_to_begin(store: Store) -> None:
    with pytest.raises(RunNotFoundError, match="contains no runs; start one with `cifarray submit"):
        Run.open(store, "anything")


def test_a_submission_that_died_between_its_two_writes_is_a_pending_run(run: Run) -> None:
    run.store.delete([run.key("status.json")])
    again = Run.open(run.store, run.id)
    assert again.status().state == "pending"
    assert again.status().job == "train-digits"
    attempt = again.start_attempt("a driver")
    assert again.status().state == "running"
    assert again.status().kind == "train"
    assert attempt.number == 1


def test_a_run_without_job_shows_as_failed_and_says_why(run: Run) -> None:
    run.store.delete([run.key("job.yaml"), run.key("status.json")])
    run.store.write(run.key("attempts", "1", "metrics.jsonl"), b"")
    again = Run.open(run.store, run.id)
    assert again.status().state == "failed"
    assert "job.yaml" in (again.status().error or "")
    with pytest.raises(StoreError):
        again.spec()


def test_a_damaged_job_is_one_sentence(run: Run) -> None:
    for data in (b"", b"{", b"[1, 2]", b"run_id: x", b"\xff\x00", b"a: !!python/x"):
        run.store.write(run.key("job.yaml"), data)
        with pytest.raises(StoreError, match=f"job.yaml of run {run.id} is damaged") as caught:
            run.spec()
        assert "\n" not in str(caught.value)


def test_a_job_yaml_that_would_fill_the_memory_is_refused(run: Run) -> None:
    levels = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    run.store.write(run.key("job.yaml"), "\n".join(levels).encode())
    with pytest.raises(
        StoreError, match=r"job\.yaml of run .* is damaged: it expands to more than"
    ):
        run.spec()


def test_a_damaged_status_does_not_hide_the_run_and_an_attempt_mends_it(run: Run) -> None:
    run.store.write(run.key("status.json"), b"{torn")
    assert "damaged" in (run.status().error or "")
    run.start_attempt("a driver")
    status = run.status()
    assert (status.state, status.job, status.kind, status.error) == (
        "running",
        "train-digits",
        "train",
        None,
    )


def test_the_cluster_is_recorded_beside_what_else_is_known(run: Run) -> None:
    run.set_cluster({"profile": "local", "dashboard": "http://127.0.0.1:8265"})
    status = run.status()
    assert status.cluster == {"profile": "local", "dashboard": "http://127.0.0.1:8265"}
    assert (status.state, status.job) == ("pending", "train-digits")


@pytest.mark.parametrize("mark", ["stopped", "failed"])
def test_a_run_that_nobody_works_on_is_marked(run: Run, mark: str) -> None:
    (run.mark_stopped if mark == "stopped" else run.mark_failed)("the node is gone")
    status = run.status()
    assert (status.state, status.error) == (mark, "the node is gone")
    assert status.ended_at is not None


def test_a_finished_run_stays_finished(finished: Run) -> None:
    before = finished.status()
    finished.mark_stopped("too late")
    finished.mark_failed("its job has ended")
    with pytest.raises(InputError, match=rf"run {finished.id} has finished; look at it with"):
        finished.change_status(lambda status: dataclasses.replace(status, state="pending"))
    with pytest.raises(LeaseLostError, match="was finished by attempt 1 before attempt 2 could"):
        finished.start_attempt("a driver that saw it running a moment ago")
    assert finished.status() == before


def test_only_attempts_with_plain_numbers_count(run: Run) -> None:
    for name in ("1", "2", "10", "02", "x", "-1", "²"):
        run.store.write(run.key("attempts", name, "file"), b"")
    assert run.attempt_numbers() == [1, 2, 10]


def test_metrics_are_those_of_the_newest_attempt_from_its_beginning_on(run: Run) -> None:
    first = run.start_attempt("one")
    write_metrics(run.store, first.prefix, [{"epoch": 0}])
    second = run.take_charge("two")
    write_metrics(run.store, second.prefix, [{"epoch": 1}])
    assert run.metrics() == [{"epoch": 0}]
    second.begin()
    assert run.metrics() == [{"epoch": 1}]
    run.start_attempt("three")
    write_metrics(run.store, first.prefix, [{"epoch": 0}, {"epoch": 1}])
    assert run.metrics() == []


def test_a_report_exists_only_with_a_true_index(finished: Run) -> None:
    assert finished.has_report()
    assert finished.report() == {"test.top1": 0.9}
    finished.store.write(finished.key("report", "report.json"), b'{"test.top1": 0.8}\n ')
    assert not finished.has_report()
    with pytest.raises(StoreError, match=r"has no complete report: .*report.json"):
        finished.report()
    finished.store.delete([finished.key("report", "files.json")])
    with pytest.raises(StoreError, match=r"has no complete report: .*files.json is missing"):
        finished.report()


def test_the_size_is_that_of_all_files(run: Run) -> None:
    before = run.size_bytes()
    run.store.write(run.key("attempts", "1", "file"), b"x" * 1000)
    assert before > 0
    assert run.size_bytes() == before + 1000
