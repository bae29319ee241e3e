"""A driver that was stopped in the middle of a write wakes up after another has taken its run."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.runs import Run, check_index, plan_pull, pull
from tests.holding_proxy import Held, Request
from tests.integration.command_line import Ended, wait_for, wait_until
from tests.integration.drivers import Drivers
from tests.integration.same_runs import refuse_difference, refuse_other_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def take_over(drivers: Drivers, held: Callable[[], bool]) -> tuple[Ended, Ended]:
    """Stop the first driver once that is held, begin a second, and wake the first; their ends."""
    first = drivers.begin(drivers.proxy.address)
    wait_until(held, "what is to be held", first)
    pids = drivers.writers(first)
    assert len(pids) == 4, "a driver, the controller of its training and two workers"
    drivers.signal(pids, signal.SIGSTOP)
    drivers.stack.callback(drivers.signal, pids, signal.SIGCONT)
    second = drivers.begin(drivers.run.store.endpoint)
    wait_until(lambda: drivers.run.status().attempts == 2, "the second attempt", second)
    assert first.poll() is None
    drivers.proxy.release()
    drivers.signal(pids, signal.SIGCONT)
    return wait_for(first), wait_for(second)


def refuse_traces(drivers: Drivers, ends: tuple[Ended, Ended], trained: Run, folder: Path) -> None:
    """Fail unless the run is what it would be without the first driver, its folder taken away."""
    run, (first, second) = drivers.run, ends
    assert first.code == 1, first.out + first.err
    (sentence,) = (line for line in first.out.splitlines() if line.startswith("error: "))
    assert f" attempt 1 of run {run.id} is no longer in charge: another attempt or" in sentence
    assert "Traceback" not in first.out + first.err
    assert second.code == 0, second.out + second.err
    assert "continuing from attempt 1: epoch " in second.out
    run.store.delete_folder(run.key("attempts", "1"))
    status = run.status()
    assert (status.state, status.attempts, status.error) == ("finished", 2, None)
    assert check_index(run.store, run.key("attempts", "2")) == []
    refuse_difference(run, trained, folder)
    refuse_other_report(run, trained)
    chosen = plan_pull(run).checkpoints
    assert all(key.startswith("attempts/2/") for key in (*chosen.values(), best_of(run)))
    assert pull(run, folder / "pulled").problems == []


def best_of(run: Run) -> str:
    """The checkpoint that the run names as its best."""
    named: str = run.store.read_json(run.key("best.json"))["checkpoint"]
    return named


def is_state_of_epoch_2(request: Request) -> bool:
    """Whether a request sends the network of the first attempt's second epoch."""
    parts = ("/attempts/1/checkpoints/", "/epoch_000002_", "/state.pt")
    return request.method == "PUT" and all(part in request.path for part in parts)


def test_stopped_inside_the_upload_of_a_checkpoint(
    drivers: Drivers, trained: Run, tmp_path: Path
) -> None:
    proxy = drivers.proxy
    proxy.hold(is_state_of_epoch_2, "half")
    ends = take_over(drivers, lambda: bool(proxy.held))
    (upload,) = proxy.held
    assert upload.answered.wait(30)
    assert upload.status == 200, "the rest of it came after the second had begun"
    refuse_traces(drivers, ends, trained, tmp_path)
    assert "continuing from attempt 1: epoch 1\n" in ends[1].out


def is_status_with_progress(request: Request) -> bool:
    """Whether a request says in the run's status how far the training is."""
    is_status = request.method == "PUT" and request.path.endswith("/status.json")
    return is_status and b'"progress": {' in request.body


def is_checkpoints_end(request: Request) -> bool:
    """Whether a request deletes a checkpoint of the first attempt."""
    return request.deletes and all(map(request.names, ("/attempts/1/checkpoints/", "/epoch_")))


def test_stopped_just_before_it_writes_the_status_and_deletes_an_old_checkpoint(
    drivers: Drivers, trained: Run, tmp_path: Path
) -> None:
    proxy = drivers.proxy
    proxy.hold(lambda r: is_status_with_progress(r) or is_checkpoints_end(r), "whole")

    def held(of: Callable[[Request], bool]) -> list[Held]:
        return [each for each in proxy.held if of(each.request)]

    ends = take_over(
        drivers, lambda: bool(held(is_status_with_progress) and held(is_checkpoints_end))
    )
    (status,), (end,) = held(is_status_with_progress), held(is_checkpoints_end)
    assert status.answered.wait(30) and end.answered.wait(30)
    assert status.status == 412
    assert end.status in (200, 204), "it was deleted after the second had begun"
    refuse_traces(drivers, ends, trained, tmp_path)
