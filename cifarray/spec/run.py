"""What a run records before it starts: all that its numbers depend on."""

from typing import Any

from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.spec.record import Record


class CodeSpec(Record):
    """A folder of the user's code that travels with the run."""

    key: str
    """Where its zip is in the store."""
    sha256: str


class WeightsSpec(Record):
    """The weights that a run's network begins with, copied into the run's folder."""

    key: str
    """Where the safetensors file is in the store."""
    source: str = ""
    """Source of the weights, as in the job; for a run, the key of its checkpoint."""
    sha256: str
    fresh: tuple[str, ...] = ()
    """Weights that it has none for: those of a head for other classes; they begin random.

    Of a sweep those of any trial; unknown of a user-defined network."""


class RunSpec(Record):
    """`runs/<id>/job.yaml`: enough to run it again."""

    run_id: str
    job: Job
    profile: Profile
    world_size: int
    dataset_digest: str
    """The full 64 hexadecimal digits."""
    validation_rows: int
    validation_sha256: str
    """sha256 over the sorted validation row_ids as a JSON list; validation.parquet holds them."""
    submitted_at: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    """Of Python, cifarray and the packages that numbers depend on; and `commit` where known."""
    code: CodeSpec | None = None
    weights: WeightsSpec | None = None
    best_of: dict[str, Any] | None = None
    """The sweep and trial whose fields this job took: {"run_id", "trial_id", "params"}."""


REQUEST_VARIABLE = "CIFARRAY_REQUEST"
"""Environment variable in which a request travels to a driver that may have to record its run."""
OWN_JOBS_VARIABLE = "CIFARRAY_OWN_JOBS_API"
"""Environment variable that names the Jobs API of a Ray cluster that is there for one run alone."""


class RunRequest(Record):
    """A run that is asked for: enough to record it wherever its dataset is in reach."""

    run_id: str
    job: Job
    profile: Profile
    workers: int | None = None
    """None: as many as the profile has."""
    submitted_at: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    dataset_digest: str | None = None
    """None: the dataset's latest."""
    best_of: dict[str, Any] | None = None

    @property
    def world_size(self) -> int:
        """The workers of the run."""
        return self.workers or self.profile.workers
