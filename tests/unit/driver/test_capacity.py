"""Waiting for the workers' places: what is told meanwhile, and how it ends."""

from collections.abc import Callable, Iterator

import pytest

from cifarray.driver.capacity import LOOK_EVERY_S, wait_for_capacity
from cifarray.errors import ClusterError


class Cluster:
    """One whose places come after some looks, and whose clock goes on by each look's time."""

    def __init__(self, comes_after: int | None, has: Iterator[int] | None = None) -> None:
        self.now = 1000.0
        self.looks = 0
        self._comes_after, self._has = comes_after, has

    def come(self, within_s: float) -> bool:
        if self.looks == self._comes_after:
            return True
        self.looks += 1
        self.now += within_s
        return False

    def missing(self) -> str:
        has = next(self._has or iter("0"))
        return f"capacity for 2 workers with 1 GPUs each; the cluster has {has} GPUs"

    def wait(self, limit_s: float, tell: Callable[[str], None]) -> None:
        wait_for_capacity(self.come, self.missing, limit_s, tell, clock=lambda: self.now)


@pytest.fixture
def told() -> list[str]:
    return []


def test_capacity_that_is_there_is_not_waited_for(told: list[str]):
    cluster = Cluster(comes_after=0)
    cluster.wait(60, told.append)
    assert (cluster.looks, told) == (0, [""])


def test_what_is_missing_is_told_until_it_comes_and_once_while_it_stays_the_same(
    told: list[str], capsys: pytest.CaptureFixture[str]
):
    Cluster(comes_after=4, has=iter([0, 0, 1, 1])).wait(60, told.append)
    sentences = [
        f"capacity for 2 workers with 1 GPUs each; the cluster has {n} GPUs" for n in (0, 1)
    ]
    assert told == [*sentences, ""]
    assert capsys.readouterr().out.splitlines() == [f"waiting for {text}" for text in sentences]


def test_the_wait_ends_by_the_drivers_own_clock_with_what_was_missing(told: list[str]):
    cluster = Cluster(comes_after=None)
    with pytest.raises(
        ClusterError, match=r"within 60 s there was no capacity for 2 .* has 0 GPUs"
    ):
        cluster.wait(60, told.append)
    assert 60 < cluster.looks * LOOK_EVERY_S <= 60 + LOOK_EVERY_S
