"""The sentence of a failure: what caused it and what helps, chosen from an error or its text.

Tools put the cause first and advice last, and wrap one worker's error into another's; so neither
the first nor the last line of a text is its cause.
"""

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cifarray.errors import CifarrayError, RepeatingError
from cifarray.runs.failures import KnownFailure, Repeats, find_known
from cifarray.runs.failures.infrastructure import KUBERNETES, RAY, STORES
from cifarray.runs.failures.training import DISTRIBUTED, GPUS, MEMORY, NETWORKS

KNOWN: tuple[KnownFailure, ...] = (
    *NETWORKS,
    *GPUS,
    *DISTRIBUTED,
    *MEMORY,
    *KUBERNETES,
    *RAY,
    *STORES,
)
"""In the order in which a text is compared with them: a cause comes before its consequences."""
LONGEST = 400
"""Characters of a sentence that was taken over from elsewhere."""
CODE_PREFIX = "cifarray-code-"
"""Begins the name of the folder that a worker unpacks a run's own code into."""

_WRAPPED = ("controller_failure", "health_check_failure", "_base_exc", "cause")
"""Attributes in which Ray's errors contain the original error."""
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'^(?:  File ".*| {4}.*)\n?', re.MULTILINE)
_RAISED = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?(?P<type>[A-Z]\w*?(?:Error|Exception|Exit|Interrupt|Unsupported))"
    r"(?:\(\w+\))?(?:: (?P<text>.*(?:\n(?!\S*Error\b|Traceback|The above|During ).*)*))?$",
    re.MULTILINE,
)
_OWN_FRAME = re.compile(rf'File "[^"]*/{CODE_PREFIX}[^/"]+/(?P<file>[^"]+)", line (?P<line>\d+)')
_OURS = re.compile(r"^cifarray\.errors\.(?P<type>\w+): (?P<text>.+)$", re.MULTILINE)
_HOST = re.compile(r"hostname='(?P<host>[^']+)'")
_NO_CAUSE = re.compile(r"^(?:Traceback|\[Rank|Training failed due to|.*Error Snippet\]:)")


@dataclass(frozen=True)
class Cause:
    """Why something failed, and what a person can do about it."""

    sentence: str
    remedy: str = ""
    repeats: Repeats | None = None
    """Whether a retry fails in the same way; None if the text does not tell."""
    follows: bool = False
    """Whether it comes from another worker's failure."""

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence


def find_cause(told: BaseException | str) -> Cause:
    """The cause that an error, or the text of one, tells of."""
    if isinstance(told, BaseException):
        told = unwrapped(told)
        if isinstance(told, CifarrayError):
            return own_sentence(str(told) or type(told).__name__)
        told = _with_causes(told)
    text = _COLOR.sub("", told)
    if ours := _OURS.findall(text):  # it is a sentence for a person already
        return own_sentence(ours[-1][1])
    said = _FRAME.sub("", text)
    place = _own_place(text)
    causes_first = sorted(KNOWN, key=lambda known: known.follows)
    if found := find_known(said, causes_first):
        known, sentence = found
        return Cause(sentence + place, known.remedy, known.repeats, known.follows)
    return Cause(_shortened(_unknown(said)) + place)


def own_sentence(text: str) -> Cause:
    """A sentence of cifarray's own, which says what failed and, after a semicolon, what to do."""
    sentence, _, remedy = " ".join(text.split()).partition("; ")
    return Cause(_shortened(sentence), _shortened(remedy))


def worker_cause(failures: Mapping[int, BaseException]) -> tuple[int, Cause]:
    """(rank, cause) of the worker that failed by itself; others may have failed because of it."""
    causes = {rank: find_cause(error) for rank, error in sorted(failures.items())}
    rank = min(causes, key=lambda rank: causes[rank].follows)
    return rank, causes[rank]


def failed_worker(error: BaseException | None) -> dict[str, Any] | None:
    """{"rank", "host"} of the worker whose failure an error tells of; None if it names none."""
    while error is not None:
        failures = getattr(error, "worker_failures", None)
        if isinstance(failures, Mapping) and failures:
            rank = worker_cause(failures)[0]
            host = _HOST.search(str(failures[rank]))
            return {"rank": rank, "host": host["host"] if host else None}
        inner = unwrapped(error)
        if isinstance(inner, RepeatingError) and inner.rank is not None:
            return {"rank": inner.rank, "host": inner.host}
        error = error.__cause__
    return None


def unwrapped(error: BaseException) -> BaseException:
    """The original error inside Ray's own errors."""
    failures = getattr(error, "worker_failures", None)
    if isinstance(failures, Mapping) and failures:
        return unwrapped(failures[worker_cause(failures)[0]])
    for name in _WRAPPED:
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return unwrapped(inner)
    return error


def _with_causes(error: BaseException) -> str:
    """The error's traceback after those that it was raised from; not what was handled meanwhile."""
    lines: list[str] = []
    told: BaseException | None = error
    while told is not None:
        lines = [*traceback.format_exception(told, chain=False), *lines]
        told = told.__cause__
    return "".join(lines)


def _unknown(said: str) -> str:
    """The error that was raised last, with the first line of what it says."""
    raised = list(_RAISED.finditer(said))
    if raised:
        kind, text = raised[-1]["type"], (raised[-1]["text"] or "").strip()
        return f"{kind}: {_first_line(text)}" if text else kind
    return _first_line(said)


def _first_line(text: str) -> str:
    """The first line that says something, with the next one where it only announces that."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not _NO_CAUSE.match(line)] or lines
    return (
        " ".join(telling[: 2 if telling[0].endswith(":") else 1])
        if telling
        else "it has no message"
    )


def _own_place(text: str) -> str:
    """Where in the run's own code it was raised; empty if it was not."""
    found = _OWN_FRAME.findall(text)
    return f" ({found[-1][0]}, line {found[-1][1]})" if found else ""


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
