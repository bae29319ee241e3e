"""What a check is, what it finds, and how checks are carried out one after the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cifarray.backends.kubernetes.client import RefusedError
from cifarray.errors import CifarrayError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
S = TypeVar("S")


@dataclass(frozen=True)
class Result:
    """The outcome of one check."""

    outcome: str
    """passed, failed or skipped."""
    finding: str
    """What was seen; of a skipped check, why it was."""
    remedy: str = ""
    """What to do next."""


@dataclass(frozen=True)
class Finding:
    """A check by its name, and what it found."""

    check: str
    result: Result


@dataclass(frozen=True)
class Check(Generic[S]):
    """One thing to look at; `S` is what it looks at."""

    name: str
    look: Callable[[S], Result]
    needs: str | None = None
    """The check that has to pass first."""


def passed(finding: str) -> Result:
    """All is well."""
    return Result(PASSED, finding)


def failed(finding: str, remedy: str) -> Result:
    """Something is amiss, and what helps."""
    return Result(FAILED, finding, remedy)


def skipped(reason: str) -> Result:
    """It does not apply here, or cannot be seen."""
    return Result(SKIPPED, reason)


def carry_out(checks: Sequence[Check[S]], subject: S) -> Iterator[Finding]:
    """Each check's result; a check whose need is not met is skipped."""
    outcomes: dict[str, str] = {}
    for check in checks:
        if check.needs is not None and outcomes.get(check.needs) != PASSED:
            result = skipped(f"`{check.needs}` has to pass first")
        else:
            result = _look(check, subject)
        outcomes[check.name] = result.outcome
        yield Finding(check.name, result)


def _look(check: Check[S], subject: S) -> Result:
    try:
        return check.look(subject)
    except RefusedError as error:
        if error.code == 403:
            return skipped(f"it needs a right that you lack: {error.message}")
        return Result(FAILED, str(error))
    except CifarrayError as error:
        return Result(FAILED, str(error))
