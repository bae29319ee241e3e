"""The interface by which work on a dataset reports its progress."""

from typing import Literal, Protocol


class Progress(Protocol):
    """Receives the start and the progress of each piece of work."""

    def start(self, description: str, total: int | None, unit: Literal["bytes", "rows"]) -> None:
        """A new piece of work starts and the previous one is over. `total` is None if unknown."""

    def advance(self, amount: int) -> None:
        """This many more bytes or rows are done."""

    def remark(self, text: str) -> None:
        """A remark about the source for a person."""


class Silent:
    """Shows nothing."""

    def start(self, description: str, total: int | None, unit: Literal["bytes", "rows"]) -> None:
        """Show nothing."""

    def advance(self, amount: int) -> None:
        """Show nothing."""

    def remark(self, text: str) -> None:
        """Show nothing."""
