"""A new attempt takes over copies of what an earlier one reached."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cifarray.driver.attempt import carry_over
from cifarray.runs import Attempt, Run
from cifarray.runs.metrics_log import write_metrics
from cifarray.training.checkpoint import write_checkpoint
from cifarray.training.checkpoint_store import best_good, newest_good, stored_checkpoints


def put_checkpoint(attempt: Attempt, epoch: int, top1: float, scratch: Path) -> str:
    record: dict[str, Any] = {"epoch": epoch, "step": epoch, "validation.top1": top1}
    folder = scratch / f"{attempt.number}-{epoch}"
    write_checkpoint(folder, {"of": [attempt.number, epoch]}, record)
    key = f"{attempt.prefix}/checkpoints/ray/epoch_{epoch:06d}_ab12"
    for path in folder.iterdir():
        attempt.run.store.upload(path, f"{key}/{path.name}")
    return key


def epochs(run: Run, attempt: Attempt) -> list[int]:
    return [checkpoint.epoch for checkpoint in stored_checkpoints(run.store, attempt.prefix)]


def test_a_first_attempt_has_nothing_to_take_over(run: Run, capfd: pytest.CaptureFixture[str]):
    attempt = run.take_charge("one")
    carry_over(run, attempt)
    assert run.store.list(attempt.prefix) == []
    assert capfd.readouterr().out == ""


def test_a_training_takes_over_its_newest_and_its_best_checkpoint(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = run.start_attempt("one")
    for epoch, top1 in enumerate((0.2, 0.9, 0.5, 0.6), start=1):
        put_checkpoint(first, epoch, top1, tmp_path)
    second = run.start_attempt("two")
    carry_over(run, second)
    assert epochs(run, second) == [4, 2]
    newest = newest_good(run.store, second.prefix, tmp_path / "newest")
    best = best_good(run.store, second.prefix, "validation.top1", tmp_path / "best")
    assert newest and best
    assert (newest.epoch, best.epoch) == (4, 2)
    assert capsys.readouterr().out == "continuing from attempt 1: epoch 4\n"


def test_a_training_takes_over_its_history_up_to_the_newest_checkpoint(run: Run, tmp_path: Path):
    first = run.start_attempt("one")
    records = [{"epoch": epoch, "validation.top1": 0.5} for epoch in (1, 2, 3)]
    write_metrics(run.store, first.prefix, records)
    put_checkpoint(first, 2, 0.5, tmp_path)
    second = run.take_charge("two")
    carry_over(run, second)
    second.begin()
    write_metrics(run.store, first.prefix, [])
    assert run.metrics() == records[:2]


def test_a_training_takes_over_the_histograms_up_to_its_newest_checkpoint(run: Run, tmp_path: Path):
    first = run.start_attempt("one")
    for epoch in (2, 4):
        name = f"tensorboard/events.out.tfevents.histograms.{epoch:06d}"
        run.store.write(f"{first.prefix}/{name}", b"events")
    put_checkpoint(first, 3, 0.5, tmp_path)
    second = run.take_charge("two")
    carry_over(run, second)
    keys = [entry.key for entry in run.store.list(f"{second.prefix}/tensorboard")]
    assert keys == [f"{second.prefix}/tensorboard/events.out.tfevents.histograms.000002"]


def test_an_attempt_that_died_while_it_copied_is_passed_over(
    run: Run, sweep_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    put_checkpoint(run.start_attempt("one"), 3, 0.5, tmp_path)
    put_checkpoint(run.take_charge("two"), 2, 0.9, tmp_path)
    sweep_run.store.write(f"{sweep_run.start_attempt('one').prefix}/trials/t0/trial.json", b"")
    sweep_run.store.write(f"{sweep_run.take_charge('two').prefix}/trials/t0/tuner.pkl", b"")
    for each in (run, sweep_run):
        carry_over(each, each.take_charge("three"))
    out = capsys.readouterr().out
    assert out == "continuing from attempt 1: epoch 3\ncontinuing from attempt 1: 1 trials\n"


def test_what_a_living_attempt_deletes_meanwhile_is_not_missed(run: Run, tmp_path: Path):
    """Its retention replaces each checkpoint by the next while they are being copied."""
    first = run.start_attempt("one")
    keys, over = [put_checkpoint(first, 1, 0.5, tmp_path)], threading.Event()

    def live() -> None:
        while not over.wait(0.05):
            keys.append(put_checkpoint(first, len(keys) + 1, 0.5, tmp_path))
            run.store.delete_folder(keys[-2])

    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(live)
        try:
            for _ in range(5):
                second, reached = run.take_charge("two"), len(keys)
                carry_over(run, second)
                assert max(epochs(run, second)) >= reached
        finally:
            over.set()
        living.result()


def test_damaged_checkpoints_stay_behind(run: Run, tmp_path: Path):
    first = run.start_attempt("one")
    put_checkpoint(first, 1, 0.5, tmp_path)
    damaged = put_checkpoint(first, 2, 0.9, tmp_path)
    run.store.write(f"{damaged}/state.pt", b"damaged")
    second = run.start_attempt("two")
    carry_over(run, second)
    assert epochs(run, second) == [1]


def test_an_attempt_that_reached_nothing_is_passed_over(run: Run, tmp_path: Path):
    first = run.start_attempt("one")
    put_checkpoint(first, 3, 0.5, tmp_path)
    second = run.start_attempt("two")
    run.store.write(f"{second.prefix}/driver.log", b"died at once")
    third = run.start_attempt("three")
    carry_over(run, third)
    assert epochs(run, third) == [3]


def test_a_third_attempt_takes_over_what_the_second_reached(run: Run, tmp_path: Path):
    put_checkpoint(run.start_attempt("one"), 3, 0.9, tmp_path)
    second = run.start_attempt("two")
    carry_over(run, second)
    put_checkpoint(second, 4, 0.5, tmp_path)
    third = run.start_attempt("three")
    carry_over(run, third)
    assert epochs(run, third) == [4, 3]


def test_the_earlier_attempt_keeps_what_it_had(run: Run, tmp_path: Path):
    first = run.start_attempt("one")
    put_checkpoint(first, 1, 0.5, tmp_path)
    before = [entry.key for entry in run.store.list(first.prefix)]
    carry_over(run, run.start_attempt("two"))
    assert [entry.key for entry in run.store.list(first.prefix)] == before


def test_a_sweep_takes_over_tunes_whole_folder(sweep_run: Run, capsys: pytest.CaptureFixture[str]):
    store, first = sweep_run.store, sweep_run.start_attempt("one")
    files = ["tuner.pkl", "t0/trial.json", "t0/checkpoint_000001/state.pt", "t1/trial.json"]
    for name in files:
        store.write(f"{first.prefix}/trials/{name}", name.encode())
    store.write(f"{first.prefix}/driver.log", b"")
    second = sweep_run.start_attempt("two")
    carry_over(sweep_run, second)
    keys = [entry.key for entry in store.list(second.prefix)]
    assert keys == sorted(f"{second.prefix}/trials/{name}" for name in files)
    assert store.read(f"{second.prefix}/trials/tuner.pkl") == b"tuner.pkl"
    assert capsys.readouterr().out == "continuing from attempt 1: 2 trials\n"
