"""Which checks a profile gets; runs them one after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cifarray.backends.base import FAILED, PASSED, Check, Result, skipped
from cifarray.backends.choice import backend_of
from cifarray.backends.kubernetes.client import RefusedError
from cifarray.doctor.store import BUCKET_CHECKS, store_checks
from cifarray.errors import CifarrayError
from cifarray.spec.profile import Profile
from cifarray.store import Store


@dataclass(frozen=True)
class Finding:
    """A check by its name, and what it found."""

    check: str
    result: Result


def diagnose(profile: Profile, open_store: Callable[[], Store]) -> Iterator[Finding]:
    """Run every check that fits the profile, one after the other.

    `open_store` opens the store that commands use on this machine.
    """
    backend = backend_of(profile)
    checks, answers = backend.checks(open_store), False
    for found in run_checks(checks):
        answers = answers or (found.check == checks[0].name and found.result.outcome == PASSED)
        yield found
    if not profile.store_is_inside:
        yield from run_checks(store_checks(open_store()))
        return
    if not answers:
        yield from _skipped(BUCKET_CHECKS, checks[0].name)
        return
    with ExitStack() as stack:
        try:
            store = stack.enter_context(backend.reached_store())
        except CifarrayError as error:
            yield Finding(BUCKET_CHECKS[0], Result(FAILED, str(error)))
            yield from _skipped(BUCKET_CHECKS[1:], BUCKET_CHECKS[0])
            return
        yield from run_checks(store_checks(store))


def diagnose_store(store: Store) -> Iterator[Finding]:
    """Run the checks of one store."""
    yield from run_checks(store_checks(store))


def names(profile: Profile) -> list[str]:
    """The names of the checks that a profile may get."""
    checks = backend_of(profile).checks(lambda: Store.open(profile.store.uri))
    return [*(each.name for each in checks), *BUCKET_CHECKS]


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """Each check's result; a check whose need is not met is skipped."""
    outcomes: dict[str, str] = {}
    for check in checks:
        if check.needs is not None and outcomes.get(check.needs) != PASSED:
            result = skipped(f"`{check.needs}` must pass first")
        else:
            result = _look(check)
        outcomes[check.name] = result.outcome
        yield Finding(check.name, result)


def _look(check: Check) -> Result:
    try:
        return check.look()
    except RefusedError as error:
        if error.code == 403:
            return skipped(f"it requires a right that you do not have: {error.message}")
        return Result(FAILED, str(error))
    except CifarrayError as error:
        return Result(FAILED, str(error))


def _skipped(names: Sequence[str], needs: str) -> Iterator[Finding]:
    for name in names:
        yield Finding(name, skipped(f"`{needs}` must pass first"))
