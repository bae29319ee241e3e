"""The driver's own clock, which bounds a run on the long-lived RayCluster alone."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from cifarray.driver.heartbeat import in_time, limit_s, within
from cifarray.errors import ClusterError, RunFailedError
from cifarray.spec.profile import Profile


def on_kubernetes(mode: str) -> Profile:
    section = {"mode": mode, "max_run_s": 600}
    return Profile.model_validate({"name": "k", "kind": "kubernetes", "kubernetes": section})


@pytest.fixture(autouse=True)
def stoppable() -> Iterator[None]:
    """SIGTERM means what it means in a driver."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_only_a_run_of_the_long_lived_cluster_has_a_limit_of_the_drivers():
    assert limit_s(on_kubernetes("ray-jobs")) == 600
    assert limit_s(on_kubernetes("rayjob")) is None
    assert limit_s(Profile(name="here", kind="local")) is None


def test_what_takes_too_long_ends_in_one_sentence():
    began = time.monotonic()
    with (
        pytest.raises(RunFailedError, match=r"^the run took longer"),
        within(0.2, "the run took longer"),
    ):
        time.sleep(30)
    assert time.monotonic() - began < 10


def test_a_run_that_is_stopped_in_time_is_not_called_late():
    with pytest.raises(KeyboardInterrupt), within(30, "the run took longer"):
        signal.raise_signal(signal.SIGTERM)


def test_an_error_of_the_work_stays_what_it_is():
    with pytest.raises(ClusterError, match="no room"), within(30, "the run took longer"):
        raise ClusterError("no room")


def test_the_clock_ends_with_the_work():
    with within(0.3, "the run took longer"), in_time(on_kubernetes("ray-jobs")):
        pass
    time.sleep(0.5)
    assert not [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
