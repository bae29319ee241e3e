"""Time limits, pauses between retries, and repeated calls in the background."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

JITTER = random.Random()
"""Separate from the global generator: a pause must not change the numbers that a training draws."""


class Deadline:
    """A time limit that starts now, by this machine's monotonic clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._end, self._clock = clock() + seconds, clock

    @property
    def left_s(self) -> float:
        """Seconds until it is reached; 0 afterwards."""
        return max(0.0, self._end - self._clock())

    @property
    def is_over(self) -> bool:
        """Whether it is reached."""
        return self.left_s == 0.0

    def allows(self, pause_s: float) -> bool:
        """Whether a pause that starts now ends before it."""
        return pause_s < self.left_s

    def looks(self, pause_s: float) -> Iterator[None]:
        """Once now, and after every such pause until it is over, as `for _ in` takes them."""
        yield
        while not self.is_over:
            time.sleep(pause_s)
            yield


def pauses(steps_s: Sequence[float], jitter: float = 0.25) -> Iterator[float]:
    """These pauses, the last one for ever, each by up to this share longer or shorter."""
    for pause_s in itertools.chain(steps_s, itertools.repeat(steps_s[-1])):
        yield pause_s * JITTER.uniform(1.0 - jitter, 1.0 + jitter)


@contextmanager
def every(
    seconds: float,
    call: Callable[[], bool | None],
    name: str,
    *,
    at_once: bool = False,
    at_end: bool = False,
    join_s: float | None = None,
) -> Iterator[None]:
    """Repeat a call in a daemon thread, with a pause between two calls, while the block runs.

    The first call comes after a pause, or `at_once`; one more `at_end`, after the block. A call
    that returns False ends the thread. The block's end waits for the thread, for up to `join_s`.
    """
    over = threading.Event()

    def repeat() -> None:
        ended = False if at_once else over.wait(seconds)
        while not ended:
            if call() is False:
                return
            ended = over.wait(seconds)
        if at_end:
            call()

    thread = threading.Thread(target=repeat, daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(join_s)
