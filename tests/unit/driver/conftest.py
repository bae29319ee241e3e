"""A run of the small job in a store that holds digits."""

from collections.abc import Iterator

import pytest
import torch

from cifarray.backends.submit import create, plan
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from tests.digit_sessions import Digits, small_job

PROFILE = Profile(name="two", kind="local", workers=2)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def run(digits: Digits) -> Run:
    """A recorded run that nobody has worked on."""
    return create(plan(small_job(), PROFILE), digits.store, digits.manifest)


@pytest.fixture
def sweep_run(digits: Digits) -> Run:
    """A recorded sweep that nobody has worked on."""
    job = small_job(
        kind="tune",
        train={"epochs": 3},
        sweep={"space": {"optimizer.lr": {"loguniform": [1e-3, 0.1]}}, "trials": 4},
    )
    return create(plan(job, PROFILE), digits.store, digits.manifest)
