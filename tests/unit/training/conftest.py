"""Fixtures of the training tests: digits in a local store, one thread, small trainers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from cifarray.spec.job import Job
from cifarray.training.rows import RowSource
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, small_job


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """Digits in a store that the tests only read."""
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def trained(digits: Digits) -> Callable[..., Trainer]:
    """Trains a job to its end, by default the small one with some sections changed."""

    def train(job: Job | None = None, rows: RowSource | None = None, **sections: Any) -> Trainer:
        trainer = digits.trainer(job or small_job(**sections), rows)
        for _ in trainer.records():
            pass
        return trainer

    return train
