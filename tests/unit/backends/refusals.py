"""Small jobs and sweeps, and how the checks before a submission refuse them."""

from typing import Any

import pytest

from cifarray.backends.checks import check
from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from tests.digit_sessions import small_job

LR = {"optimizer.lr": {"loguniform": [1e-4, 0.1]}}


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"name": "two", "kind": "local", "workers": 2, **fields})


def sweep(space: dict[str, Any] | None = None, **sections: Any) -> Job:
    """A sweep of the small job; `sections` replace those of the job, `sweep` adds to its sweep."""
    given = {"space": space or LR, **sections.pop("sweep", {})}
    return small_job(kind="tune", sweep=given, **sections)


def refused(job: Job, sentence: str, **options: Any) -> None:
    """The job is refused in one sentence, with the exit code of bad input."""
    with pytest.raises(JobError, match=sentence) as caught:
        check(job, options.pop("profile", profile()), **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
