"""What every backend offers: by this protocol commands, followers and checks know clusters.

A backend is made from a profile of the user's own and reaches nothing until it is asked to. Which
one a profile means is chosen in choice.py alone.
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
"""How long a request is tried again while a server does not answer."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Between the tries; the last one is repeated."""
JOB_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Columns and rows."""


@dataclass(frozen=True)
class SubmittedJob:
    """What a cluster says of one job: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""

    id: str
    status: str
    message: str
    exit_code: int | None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in JOB_ENDED


class Jobs(Protocol):
    """The jobs of a cluster. Every failure is a ClusterError of one sentence."""

    def find(self, job_id: str, /) -> SubmittedJob | None:
        """The job of this id; None where the cluster does not know it."""

    def all_jobs(self) -> list[SubmittedJob]:
        """Jobs of ours, those that have ended too."""

    def stop(self, job_id: str, /) -> bool:
        """Ask the job to end; False where there is none or it has ended."""

    def logs(self, job_id: str, /) -> str:
        """What the driver has written so far; empty where nothing is known of it."""

    def tail(self, job_id: str, /) -> Iterator[str]:
        """The driver's log as it grows, until its job has ended."""

    def why_pending(self, job_id: str, /) -> str:
        """What the job waits for, in words; empty if for nothing known."""


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
class Check:
    """One thing to look at."""

    name: str
    look: Callable[[], Result]
    needs: str | None = None
    """The check that has to pass first."""


def passed(finding: str) -> Result:
    """All is well."""
    return Result(PASSED, finding)


def failed(finding: str, remedy: str) -> Result:
    """Something is wrong, and this fixes it."""
    return Result(FAILED, finding, remedy)


def skipped(reason: str) -> Result:
    """It does not apply here, or cannot be seen."""
    return Result(SKIPPED, reason)


class Talk(Protocol):
    """How a backend speaks to whoever waits for it."""

    def say(self, text: str, /) -> None:
        """A remark, which may be silenced."""

    def warn(self, text: str, /) -> None:
        """A remark that nobody silences."""

    def detail(self, text: str, /) -> None:
        """A remark for whoever wants to know more."""


@dataclass(frozen=True)
class Shown:
    """What a command on a cluster prints: one value as JSON, or lines and tables for a person."""

    data: Any
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    """What a person is told besides."""


@dataclass(frozen=True)
class Unrecorded:
    """A run that the store does not know: it was applied, and its driver has not begun."""

    run_id: str
    profile: str
    """Name of the profile on whose cluster it waits."""
    state: str
    """As of a recorded run."""
    why: Callable[[], str]
    stop: Callable[[], None]
    """Deletes what was applied. Raises: InputError if it has ended."""

    @property
    def reason(self) -> str:
        """What it waits for, or why it never began; whoever stops it need not be told."""
        return self.why()


@dataclass(frozen=True)
class Teardown:
    """What `cluster down` is about to end: looked at first, asked about, then carried out."""

    question: str
    """What a person is asked; empty where nothing is lost by it."""
    refusal: str
    """What is said where nobody can be asked."""
    carry_out: Callable[[bool], Shown]
    """Does it, with the store or without. Raises: ClusterError."""
    store_question: str = ""
    """Asked of a store that could stay; empty where there is none."""


class Backend(Protocol):
    """One way to reach one cluster, by a profile of the user's own."""

    own: ClassVar[bool] = False
    """Whether cifarray starts its node, on this machine."""
    answers_as: ClassVar[str] = "its cluster"
    """Who it is that knows of its jobs, in sentences."""
    makes_objects: ClassVar[bool] = False
    """Whether a run is objects that `kubectl apply` takes too."""
    outlives_its_run: ClassVar[bool] = False
    """Whether a job may go on after its run has ended."""
    profile: Profile

    @property
    def address(self) -> str:
        """Where it is, for people."""

    @property
    def dashboard(self) -> str:
        """Ray's dashboard: its address, or how to see it."""

    @property
    def certain(self) -> bool:
        """Whether what answers is certainly the cluster that a run recorded."""
        return False

    @property
    def context(self) -> str | None:
        """The kubeconfig's context that leads to it; None where none does."""
        return None

    def record(self, job_id: str | None) -> dict[str, Any]:
        """What a run's status says of it; no secret."""

    def recorded_as(
        self, record: Mapping[str, Any], explicit: bool, patience_s: float = PATIENCE_S
    ) -> "Backend | None":
        """The backend of this profile that a record names; None if it names another place.

        `explicit` says that the command names the profile. Raises: ClusterError for a record that
        names no place.
        """

    @classmethod
    def place_of(cls, record: Mapping[str, Any]) -> str:
        """Where a record says that a run is, in words. Raises: ClusterError if it says nothing."""

    @classmethod
    def may_be_asked(cls, record: Mapping[str, Any], before_acts: bool) -> bool:
        """Whether to ask the cluster that a record names; some only before something is done."""
        return True

    def dashboard_of(self, run_id: str) -> str | None:
        """Where a person sees the run's dashboard; a recorded text is never shown as a command."""
        return self.profile.dashboard

    def start(self, talk: Talk) -> None:
        """Make sure that runs can be submitted. Raises: ClusterError."""

    def submit(self, run: Run) -> str:
        """Submit the run's next attempt; the job's id. The run names it before the job runs.

        Raises: ClusterError, StoreError.
        """

    def refuse_entry(self) -> None:
        """Raise InputError where no driver can run in this process."""
        return

    def enter(self, run: Run) -> dict[str, str]:
        """Open the run for a driver in this process; the variables that the driver needs."""

    def objects(self, request: RunRequest) -> list[dict[str, Any]]:
        """What `kubectl apply` takes of a run that is asked for, where a run is such objects."""
        return []

    def applied_record(self, request: RunRequest) -> dict[str, Any] | None:
        """The record of a run whose objects somebody applied."""
        return None

    def jobs(self, patience_s: float = PATIENCE_S) -> Jobs:
        """Its jobs: find, logs, stop."""

    def stop(self, run: Run, job_id: str, talk: Talk) -> Status:
        """End a run's job and wait for it, or close the run if nobody else can."""

    def end_leftover(self, run: Run, job_id: str) -> bool:
        """End the job of a run that has ended; whether it had not. Raises: ClusterError."""
        return False

    def clear_away(self, run: Run, status: Status, job_id: str) -> str:
        """Of a followed run that has ended, delete what would only cost; what that was, if any."""
        return ""

    def find_unrecorded(self, run_id: str) -> Unrecorded | None:
        """The run of this id that waits on this cluster and that no store knows."""
        return None

    def explain(self, job_id: str) -> str:
        """What the pods of a job lack or died of, in words; empty if nothing is known."""
        return ""

    def why_ended(self, job_id: str) -> str:
        """Why a job has ended, beyond what its cluster says of the job itself."""
        return ""

    def why_unanswered(self) -> str:
        """Why nobody answers for the jobs, where that is not the server's own silence."""
        return ""

    def with_store(self, uri: str | None, endpoint: str | None) -> Profile:
        """The profile as it is recorded, where a command names a store."""
        return self.profile

    def reached_store(self) -> AbstractContextManager[Store]:
        """The profile's store as this machine reaches it, while the context lasts."""
        return nullcontext(Store.of(self.profile.store))

    def drivers_store(self, run: Run) -> StoreSpec:
        """The run's store as its driver reaches it: not through a port-forward of this machine."""
        return run.store.spec

    def checks(self, open_store: Callable[[], Store]) -> Sequence[Check]:
        """What `doctor` looks at; the first one has to pass before the store is looked at.

        `open_store` opens the store that commands use on this machine.
        """

    def manifests(self, overlay: str | None, image: str | None) -> list[dict[str, Any]]:
        """The objects that `up` applies. Raises: InputError where it applies none."""
        raise InputError(f"cluster profile {self.profile.name} is not of kind kubernetes")

    def up(self, overlay: str | None, force: bool, talk: Talk) -> Shown:
        """Start the cluster or set it up, and wait until it is ready. Raises: ClusterError."""

    def down(self, delete_store: bool | None, remove_finalizers: bool, talk: Talk) -> Teardown:
        """Look at what ending it would end. Raises: ClusterError."""

    def status(self) -> Shown:
        """Whether it answers, where, and what runs on it. Raises: ClusterError."""


def reopen(run: Run, cluster: dict[str, Any]) -> None:
    """Show the run as waiting for its next attempt, of which nothing has been heard yet."""
    fresh: dict[str, Any] = dict.fromkeys(("error", "ended_at", "heartbeat_at", "progress"))
    run.change_status(
        lambda status: dataclasses.replace(status, state="pending", cluster=cluster, **fresh)
    )
