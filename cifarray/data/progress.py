"""How work on a dataset reports its progress, whoever shows it."""

from typing import Literal, Protocol


class Progress(Protocol):
    """Is told when a piece of work begins, and how far it is."""

    def start(self, description: str, total: int | None, unit: Literal["bytes", "rows"]) -> None:
        """A piece of work begins; the one before it is over. `total` is None where unknown."""

    def advance(self, amount: int) -> None:
        """So many more bytes or rows are done."""

    def remark(self, text: str) -> None:
        """Something that a person should know of what is read."""


class Silent:
    """Shows nothing."""

    def start(self, description: str, total: int | None, unit: Literal["bytes", "rows"]) -> None:
        """Show nothing."""

    def advance(self, amount: int) -> None:
        """Show nothing."""

    def remark(self, text: str) -> None:
        """Show nothing."""
