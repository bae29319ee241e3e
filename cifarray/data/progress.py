"""How long work tells of its progress, whoever shows it."""

from typing import Literal, Protocol


class Progress(Protocol):
    """Is told of each piece of work as it begins and as it goes on."""

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
