"""How long a rank's loop waits for its batches."""

import time
from collections.abc import Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class DataWait:
    """Measures one epoch at a time.

    On a GPU it is the device's own clock that counts: from the end of a step's last kernel until
    the next batch lies there. The host runs ahead of it, so that its waits say little.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[Any, Any]] = []

    def timed(self, batches: Iterator[T], device: torch.device) -> Iterator[T]:
        """The same batches; what was measured before is forgotten."""
        self._spans = []
        while True:
            begun = _mark(device)
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._spans.append((begun, _mark(device)))
            yield batch

    def seconds(self) -> float:
        """Waited in this epoch; to be asked once the device has done the epoch's work."""
        return sum(_between(begun, ready) for begun, ready in self._spans)


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begun: Any, ready: Any) -> float:
    if isinstance(begun, float):
        return float(ready - begun)
    return float(begun.elapsed_time(ready)) / 1000.0
