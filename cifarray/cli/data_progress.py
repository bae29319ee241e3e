"""Shows a person how far the work on a dataset is: download, ingest, verification."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from cifarray.cli import output


class ShownProgress:
    """Each piece of work as a bar of its own; a remark where its length is unknown."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._advance: Callable[[int], None] = _nowhere

    def start(self, description: str, total: int | None, unit: Literal["bytes", "rows"]) -> None:
        """End the bar that is shown and begin the next."""
        self.close()
        if total is None:
            output.say(f"{description} ...")
        else:
            self._advance = self._shown.enter_context(output.progress(description, total, unit))

    def advance(self, amount: int) -> None:
        """Move the bar that is shown."""
        self._advance(amount)

    def remark(self, text: str) -> None:
        """Print what a person should know."""
        output.say(text)

    def close(self) -> None:
        """End the bar that is shown."""
        self._shown.close()
        self._advance = _nowhere


@contextmanager
def shown_progress() -> Iterator[ShownProgress]:
    """Show what `prepare` or `verify_dataset` tells of its progress until the block ends."""
    progress = ShownProgress()
    try:
        yield progress
    finally:
        progress.close()


def _nowhere(amount: int) -> None:
    """Where nothing is shown."""
