"""Known failures: a pattern of their text, a sentence with the cause, and a remedy."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Repeats = Literal["always", "at first", "never"]
"""Whether trying again meets the same error: `at first` does where no epoch was finished."""


@dataclass(frozen=True)
class KnownFailure:
    """A pattern that identifies a failure, and what a person should read instead."""

    pattern: re.Pattern[str]
    sentence: str
    """May name the pattern's groups in braces."""
    remedy: str
    repeats: Repeats | None = None
    """None if the error alone does not tell."""
    follows: bool = False
    """Whether it is a consequence of another worker's failure, whose cause is shown instead."""


def known(
    pattern: str,
    sentence: str,
    remedy: str,
    repeats: Repeats | None = None,
    follows: bool = False,
) -> KnownFailure:
    """A known failure; `.` of the pattern takes line ends, `^` begins a line."""
    compiled = re.compile(pattern, re.DOTALL | re.MULTILINE)
    return KnownFailure(compiled, sentence, remedy, repeats, follows)


def find_known(text: str, among: Iterable[KnownFailure]) -> tuple[KnownFailure, str] | None:
    """The known failure that a text tells of, and its sentence with the text's own figures."""
    for failure in among:
        if found := failure.pattern.search(text):
            return failure, _filled(failure.sentence, found.groupdict())
    return None


def _filled(sentence: str, groups: dict[str, str | None]) -> str:
    """`{name}` is a group; `{name: (%s)}` says the words around it only where there is one."""

    def put(found: re.Match[str]) -> str:
        value = " ".join((groups.get(found["name"]) or "").split())
        words = found["words"]
        if words is None:
            return value
        return words.replace("%s", value) if value else ""

    return re.sub(r"\{(?P<name>\w+)(?::(?P<words>[^}]*))?\}", put, sentence)
