"""Time that goes by without a batch counts as waiting, and time in a step does not."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from cifarray.data.split import Positions
from cifarray.training.batches import DataWait
from tests.digit_sessions import CPU, Digits, shard_reader, small_job


def slow(pauses: list[float]) -> Iterator[int]:
    """A number after each pause."""
    for number, pause in enumerate(pauses):
        time.sleep(pause)
        yield number


def test_what_a_batch_takes_to_come_counts_and_a_step_does_not():
    wait, numbers = DataWait(), []
    begun = time.perf_counter()
    for number in wait.timed(slow([0.02, 0.03, 0.0]), CPU):
        numbers.append(number)
        time.sleep(0.05)
    spent = time.perf_counter() - begun
    assert numbers == [0, 1, 2]
    assert 0.05 <= wait.seconds() <= spent - 0.15


def test_each_epoch_is_measured_anew():
    wait = DataWait()
    list(wait.timed(slow([0.3]), CPU))
    list(wait.timed(slow([0.0]), CPU))
    assert wait.seconds() < 0.3


def test_an_epoch_that_is_left_early_counts_what_it_took():
    wait = DataWait()
    next(wait.timed(slow([0.02, 5.0]), CPU))
    assert 0.02 <= wait.seconds() < 1.0


def test_an_error_while_a_batch_is_made_comes_through():
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the store is away")

    with pytest.raises(OSError, match="the store is away"):
        list(DataWait().timed(broken(), CPU))


def test_records_say_the_share_of_the_steps_time(digits: Digits):
    for record in digits.trainer().records():
        assert 0.0 < record["data_wait"] < 1.0


def test_a_rank_that_reads_slowly_waits_for_most_of_its_time(digits: Digits):
    job = small_job(train={"epochs": 1})
    rows = digits.rows(job, cache_bytes=0)
    read = shard_reader(digits.store, digits.manifest)

    def slowly(
        split: str, positions: Positions, column: str, seed: int | None
    ) -> Iterator[pa.Table]:
        time.sleep(0.5)
        yield from read(split, positions, column, seed)

    (record,) = digits.trainer(job, replace(rows, read=slowly)).records()
    assert record["data_wait"] > 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_what_the_device_waits_for_counts_and_its_own_work_does_not():
    device = torch.device("cuda")
    matrix_NN = torch.rand(4096, 4096, device=device)

    def batches(pause: float) -> Iterator[torch.Tensor]:
        for _ in range(5):
            time.sleep(pause)
            yield torch.zeros(1, device=device)

    def trained(pause: float) -> tuple[float, float]:
        """Seconds waited, and seconds in all, of steps that keep the device busy."""
        torch.cuda.synchronize()
        wait, begun = DataWait(), time.perf_counter()
        for _ in wait.timed(batches(pause), device):
            for _ in range(20):
                torch.mm(matrix_NN, matrix_NN)
        torch.cuda.synchronize()
        return wait.seconds(), time.perf_counter() - begun

    trained(0.0)  # the first kernels load libraries
    waited, spent = trained(0.0)
    assert waited < 0.1 * spent
    waited, spent = trained(2 * spent)
    assert 0.5 * spent < waited < spent
