"""What every backend offers: the protocol through which everything else uses clusters.

A backend is made from the user's own profile and contacts nothing until it is asked to. choice.py
alone decides which backend a profile means.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from cifarray.errors import InputError
from cifarray.runs import Run, Status
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.spec.run import RunRequest
from cifarray.store import Store

PATIENCE_S = 30.0
"""How long a request is retried while a server does not answer."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Pauses between the retries; the last one is repeated."""
JOB_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Columns and rows."""


@dataclass(frozen=True)
class SubmittedJob:
    """What a cluster says about one job: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""

    id: str
    status: str
    message: str
    exit_code: int | None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.status in JOB_ENDED


class Jobs(Protocol):
    """The jobs of a cluster. Every failure is a ClusterError of one sentence."""

    def find(self, job_id: str, /) -> SubmittedJob | None:
        """The job of this id; None if the cluster does not know it."""

    def all_jobs(self) -> list[SubmittedJob]:
        """Our jobs, including those that have ended."""

    def stop(self, job_id: str, /) -> bool:
        """Ask the job to end; False if there is none or it has already ended."""

    def logs(self, job_id: str, /) -> str:
        """What the driver has written so far; empty if nothing is known about it."""

    def tail(self, job_id: str, /) -> Iterator[str]:
        """The driver's log as it grows, until its job has ended."""

    def why_pending(self, job_id: str, /) -> str:
        """What the job waits for, in words; empty if unknown."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check."""

    outcome: str
    """passed, failed or skipped."""
    finding: str
    """What was found; for a skipped check, why it was skipped."""
    remedy: str = ""
    """What to do next."""


@dataclass(frozen=True)
class Check:
    """One thing to check."""

    name: str
    look: Callable[[], Result]
    needs: str | None = None
    """The check that must pass first."""


def passed(finding: str) -> Result:
    """The check passed."""
    return Result(PASSED, finding)


def failed(finding: str, remedy: str) -> Result:
    """The check failed; `remedy` fixes it."""
    return Result(FAILED, finding, remedy)


def skipped(reason: str) -> Result:
    """The check does not apply here, or cannot be made."""
    return Result(SKIPPED, reason)


class Reporter(Protocol):
    """How a backend reports to the person who waits for it."""

    def say(self, text: str, /) -> None:
        """A remark; --quiet hides it."""

    def warn(self, text: str, /) -> None:
        """A remark that is always shown."""

    def detail(self, text: str, /) -> None:
        """A remark for people who want details."""


@dataclass(frozen=True)
class CommandOutput:
    """What a command on a cluster prints: one value as JSON, or lines and tables for a person."""

    data: Any
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    """Further remarks for a person."""


@dataclass(frozen=True)
class Unrecorded:
    """A run that is not in the store yet: it was applied, and its driver has not started."""

    run_id: str
    profile: str
    """Name of the profile on whose cluster it waits."""
    state: str
    """As for a recorded run."""
    why: Callable[[], str]
    stop: Callable[[], None]
    """Deletes what was applied. Raises: InputError if it has ended."""

    @property
    def reason(self) -> str:
        """What it waits for, or why it never started; not needed to stop it."""
        return self.why()


@dataclass(frozen=True)
class Teardown:
    """What `cluster down` is about to end: collected first, confirmed by the user, then done."""

    question: str
    """The question for a person; empty if nothing is lost."""
    refusal: str
    """The error if nobody can be asked."""
    execute: Callable[[bool], CommandOutput]
    """Ends it, with or without the store. Raises: ClusterError."""
    store_question: str = ""
    """The question about a store that could be kept; empty if there is none."""


class Backend(Protocol):
    """One way to reach one cluster, by the user's own profile."""

    own: ClassVar[bool] = False
    """Whether cifarray starts its node, on this machine."""
    answers_as: ClassVar[str] = "its cluster"
    """How messages name whoever answers for its jobs."""
    makes_objects: ClassVar[bool] = False
    """Whether a run consists of objects that `kubectl apply` also accepts."""
    outlives_its_run: ClassVar[bool] = False
    """Whether a job may continue after its run has ended."""
    profile: Profile

    @property
    def address(self) -> str:
        """Where the cluster is, for people."""

    @property
    def dashboard(self) -> str:
        """Ray's dashboard: its address, or how to see it."""

    @property
    def certain(self) -> bool:
        """Whether what answers is certainly the cluster that a run recorded."""
        return False

    @property
    def context(self) -> str | None:
        """The kubeconfig context that reaches it; None if there is none."""
        return None

    def record(self, job_id: str | None) -> dict[str, Any]:
        """What a run's status records about it; no secrets."""

    def recorded_as(
        self, record: Mapping[str, Any], explicit: bool, patience_s: float = PATIENCE_S
    ) -> "Backend | None":
        """The backend of this profile that a record names; None if it names another place.

        `explicit` says that the command names the profile. Raises: ClusterError for a record that
        names no place.
        """

    @classmethod
    def place_of(cls, record: Mapping[str, Any]) -> str:
        """Where a record says that a run is, in words. Raises: ClusterError if it does not say."""

    @classmethod
    def may_be_asked(cls, record: Mapping[str, Any], before_acts: bool) -> bool:
        """Whether to ask the cluster that a record names; some are asked only before an action."""
        return True

    def dashboard_of(self, run_id: str) -> str | None:
        """Where a person sees the run's dashboard; a recorded text is never shown as a command."""
        return self.profile.dashboard

    def start(self, reporter: Reporter) -> None:
        """Make sure that runs can be submitted. Raises: ClusterError."""

    def submit(self, run: Run) -> str:
        """Submit the run's next attempt; the job's id. The run names it before the job runs.

        Raises: ClusterError, StoreError.
        """

    def refuse_entry(self) -> None:
        """Raise InputError if no driver can run in this process."""
        return

    def enter(self, run: Run) -> dict[str, str]:
        """Make this process the run's driver; returns the environment variables that it needs."""

    def objects(self, request: RunRequest) -> list[dict[str, Any]]:
        """The objects of a run for `kubectl apply`, if a run consists of such objects."""
        return []

    def applied_record(self, request: RunRequest) -> dict[str, Any] | None:
        """The record of a run whose objects somebody applied."""
        return None

    def jobs(self, patience_s: float = PATIENCE_S) -> Jobs:
        """Its jobs: find, logs, stop."""

    def stop(self, run: Run, job_id: str, reporter: Reporter) -> Status:
        """End a run's job and wait for it, or close the run if nobody else can."""

    def end_leftover(self, run: Run, job_id: str) -> bool:
        """End the job of a run that has ended; whether it still ran. Raises: ClusterError."""
        return False

    def clear_away(self, run: Run, status: Status, job_id: str) -> str:
        """Delete what an ended run no longer needs; what that was, if anything."""
        return ""

    def find_unrecorded(self, run_id: str) -> Unrecorded | None:
        """The run of this id that waits on this cluster and that no store knows."""
        return None

    def explain(self, job_id: str) -> str:
        """What the pods of a job lack or why they died, in words; empty if unknown."""
        return ""

    def why_ended(self, job_id: str) -> str:
        """Why a job has ended, beyond what its cluster says about the job itself."""
        return ""

    def why_unanswered(self) -> str:
        """Why the jobs' server does not answer, if the reason is not the server itself."""
        return ""

    def with_store(self, uri: str | None, endpoint: str | None) -> Profile:
        """The profile as it is recorded if a command names a store."""
        return self.profile

    def reached_store(self) -> AbstractContextManager[Store]:
        """The profile's store as this machine reaches it, while the context lasts."""
        return nullcontext(Store.of(self.profile.store))

    def drivers_store(self, run: Run) -> StoreSpec:
        """The run's store as its driver reaches it: not through a port-forward of this machine."""
        return run.store.spec

    def checks(self, open_store: Callable[[], Store]) -> Sequence[Check]:
        """What `doctor` checks; the first check must pass before the store is checked.

        `open_store` opens the store that commands use on this machine.
        """

    def manifests(self, overlay: str | None, image: str | None) -> list[dict[str, Any]]:
        """The objects that `up` applies. Raises: InputError if it applies none."""
        raise InputError(f"cluster profile {self.profile.name} is not of kind kubernetes")

    def up(self, overlay: str | None, force: bool, reporter: Reporter) -> CommandOutput:
        """Start the cluster or set it up, and wait until it is ready. Raises: ClusterError."""

    def down(
        self, delete_store: bool | None, remove_finalizers: bool, reporter: Reporter
    ) -> Teardown:
        """Collect what ending it would end. Raises: ClusterError."""

    def status(self) -> CommandOutput:
        """Whether it answers, where it is, and what runs on it. Raises: ClusterError."""


def reopen(run: Run, cluster: dict[str, Any]) -> None:
    """Show the run as waiting for its next attempt, which has not reported yet."""
    fresh: dict[str, Any] = dict.fromkeys(("error", "ended_at", "heartbeat_at", "progress"))
    run.change_status(
        lambda status: dataclasses.replace(status, state="pending", cluster=cluster, **fresh)
    )
