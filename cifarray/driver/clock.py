"""The driver's own clock: a run of the long-lived RayCluster ends when it has taken too long."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cifarray.errors import RunFailedError
from cifarray.spec.profile import Profile


def limit_s(profile: Profile) -> float | None:
    """How long the driver lets an attempt take; None where a RayJob's deadline ends it."""
    spec = profile.kubernetes
    return float(spec.max_run_s) if spec is not None and spec.mode == "ray-jobs" else None


@contextmanager
def in_time(profile: Profile) -> Iterator[None]:
    """Bound what the main thread does within to the profile's max_run_s.

    Raises: RunFailedError if it takes longer.
    """
    seconds = limit_s(profile)
    if seconds is None:
        yield
        return
    with within(seconds, f"it took longer than kubernetes.max_run_s ({seconds:.0f} s)"):
        yield


@contextmanager
def within(seconds: float, sentence: str) -> Iterator[None]:
    """End what the main thread does within as SIGTERM does, once it has taken this long.

    Raises: RunFailedError with the sentence if it has.
    """
    lock = threading.Lock()
    over = late = False

    def end() -> None:
        nonlocal late
        with lock:
            if not over:
                late = True
                os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            with lock:
                over = True
            timer.cancel()
    except (KeyboardInterrupt, SystemExit) as ended:  # the latter while ray.init() runs
        if late:
            raise RunFailedError(sentence) from ended
        raise
