"""A Ray cluster that its user started: runs are jobs of its Jobs API."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cifarray.backends.base import (
    PATIENCE_S,
    Backend,
    Check,
    CommandOutput,
    Reporter,
    Teardown,
    reopen,
)
from cifarray.backends.environment import JOB_CONFIG, driver_command, job_environment
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError, InputError, JobError
from cifarray.proxies import is_loopback
from cifarray.runs import ENDED, Run, Status
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.store import Store
from cifarray.timers import Deadline
from cifarray.user_folders import home_folder

STOP_TIMEOUT_S = 120.0
JOBS_STOP_TIMEOUT_S = 75.0
ASK_PATIENCE_S = 10.0
LOOK_PATIENCE_S = 5.0
POLL_S = 0.5


class RayJobsBackend(Backend):
    """The node or cluster whose addresses a profile gives."""

    def __init__(self, profile: Profile) -> None:
        """Raises: JobError for half an address."""
        if not (profile.address and profile.dashboard):
            raise JobError(
                f"cluster profile {profile.name} sets only one of address and dashboard; set "
                "both, as in address: 127.0.0.1:6379 and dashboard: http://127.0.0.1:8265"
            )
        if urlsplit(profile.dashboard).scheme not in ("http", "https"):
            raise JobError(
                f"cluster profile {profile.name}: dashboard {profile.dashboard} is not "
                "http://host:port"
            )
        self.profile = profile

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dashboard!r})"

    @property
    def address(self) -> str:
        """Of its GCS, host:port."""
        return str(self.profile.address)

    @property
    def dashboard(self) -> str:
        """http://host:port, of the Jobs API too."""
        return str(self.profile.dashboard)

    @property
    def token(self) -> str | None:
        """What its Jobs API asks for."""
        return standard_token()

    @property
    def is_here(self) -> bool:
        """Whether its head runs on this machine, so that drivers read our files."""
        return is_loopback(self.dashboard)

    def record(self, job_id: str | None) -> dict[str, Any]:
        """What a run's status says of it; no token."""
        return {
            "profile": self.profile.name,
            "address": self.address,
            "dashboard": self.dashboard,
            "job_id": job_id,
            "own": self.own,
        }

    @classmethod
    def place_of(cls, record: Mapping[str, Any]) -> str:
        return f"on the Ray node {record.get('address')} with dashboard {record.get('dashboard')}"

    @classmethod
    def may_be_asked(cls, record: Mapping[str, Any], before_acts: bool) -> bool:
        """Commands that only look send no token to an address that a record names."""
        return before_acts

    def recorded_as(
        self, record: Mapping[str, Any], explicit: bool, patience_s: float = PATIENCE_S
    ) -> Backend | None:
        """Itself, if the record gives its addresses."""
        given = str(record.get("dashboard")).rstrip("/")
        same = record.get("address") == self.address and given == self.dashboard.rstrip("/")
        return self if same and "kind" not in record else None

    def start(self, reporter: Reporter) -> None:
        """Its user has started it."""

    def submit(self, run: Run) -> str:
        return submit_job(self, self.jobs(), run, self.is_here, self._resources())

    def enter(self, run: Run) -> dict[str, str]:
        reopen(run, self.record(None))
        environment = job_environment(self.profile, run.store, self.is_here)
        # Workers run in the node's processes, not in this one: they get their part of it so.
        config = {"runtime_env": {"env_vars": environment}, "metadata": {"run_id": run.id}}
        return {**environment, "RAY_ADDRESS": self.address, JOB_CONFIG: json.dumps(config)}

    def drivers_store(self, run: Run) -> StoreSpec:
        """The run's store; on another machine its profile's region goes before this shell's."""
        store, region = run.store.spec, self.profile.store.region
        return store if self.is_here or not region else store.model_copy(update={"region": region})

    def jobs(self, patience_s: float = PATIENCE_S) -> RayJobs:
        return RayJobs(self.dashboard, self.token, patience_s)

    def stop(self, run: Run, job_id: str, reporter: Reporter) -> Status:
        """Ask the run's driver to close it, and wait until it has."""
        try:
            self.jobs(ASK_PATIENCE_S).stop(job_id)
        except ClusterError as error:
            run.mark_stopped("stopped by `cifarray stop`; its node did not answer")
            reporter.warn(
                f"{error}; a driver that still runs ends on its own, because its lease is gone"
            )
            return run.status()
        reporter.say(f"waiting for {run.id} to close ...")
        return self._wait_for_end(run, job_id)

    def checks(self, open_store: Callable[[], Store]) -> Sequence[Check]:
        from cifarray.backends.local.checks import machine_checks

        return machine_checks(self, open_store())

    def up(self, overlay: str | None, force: bool, reporter: Reporter) -> CommandOutput:
        refuse_options(self.profile, {"--overlay": overlay, "--force-conflicts": force})
        raise InputError(self._started_by_user())

    def down(
        self, delete_store: bool | None, remove_finalizers: bool, reporter: Reporter
    ) -> Teardown:
        raise InputError(self._started_by_user())

    def _started_by_user(self) -> str:
        return (
            f"cluster profile {self.profile.name} names the Ray node {self.address}, which you "
            "start and end yourself"
        )

    def status(self) -> CommandOutput:
        return described(self, self.jobs(LOOK_PATIENCE_S), None)

    def is_gone(self) -> bool:
        """Whether it has certainly ended; of a user's node nothing is certain."""
        return False

    def _resources(self) -> Mapping[str, float]:
        """Custom resources that a driver reserves."""
        return {}

    def _wait_for_end(self, run: Run, job_id: str) -> Status:
        jobs = self.jobs(ASK_PATIENCE_S)
        for _ in Deadline(STOP_TIMEOUT_S).looks(POLL_S):
            over = self.is_gone()
            with suppress(ClusterError):  # a node that does not answer for a moment says nothing
                job = None if over else jobs.find(job_id)
                # One that is pending ends as soon as it begins.
                over = job is None or job.ended or job.status == "PENDING"
            if over:
                if run.status().state not in ENDED:
                    run.mark_stopped("stopped by `cifarray stop`")
                return run.status()
        raise ClusterError(
            f"run {run.id} was asked to stop but did not within {STOP_TIMEOUT_S:.0f} s; see "
            f"`cifarray logs {run.id}`"
        )


def submit_job(
    backend: Backend,
    jobs: RayJobs,
    run: Run,
    here: bool = False,
    resources: Mapping[str, float] | None = None,
) -> str:
    """Submit the run's next driver to a Jobs API; the run names the job before it runs."""
    job_id = _free_id(run, jobs)
    reopen(run, backend.record(job_id))
    command = driver_command(run.id, backend.drivers_store(run), here)
    environment = job_environment(backend.profile, run.store, here)
    jobs.submit(command, job_id, environment, {"run_id": run.id}, resources)
    return job_id


def _free_id(run: Run, jobs: RayJobs) -> str:
    """`<run>-<attempt>`, or with a further number where an attempt ended before it began."""
    number = max([*run.attempt_numbers(), run.status().attempts], default=0) + 1
    job_id, again = f"{run.id}-{number}", 1
    while jobs.find(job_id) is not None:
        again += 1
        job_id = f"{run.id}-{number}.{again}"
    return job_id


def described(backend: RayJobsBackend, jobs: RayJobs, token_file: str | None) -> CommandOutput:
    """A Ray cluster for `cluster status`. Raises: ClusterError."""
    version, live = jobs.version().get("ray_version"), jobs.live_jobs()
    lines = [f"dashboard  {backend.dashboard}"]
    lines += [f"token      in {token_file}"] if token_file else []
    lines += [f"address    {backend.address} (Ray {version})"]
    lines += [f"job        {job.id} ({job.status.lower()})" for job in live]
    data = {
        "profile": backend.profile.name,
        "address": backend.address,
        "dashboard": backend.dashboard,
        "own": backend.own,
        "ray_version": version,
        "token_file": token_file,
        "jobs": [{"id": job.id, "status": job.status} for job in live],
    }
    return CommandOutput(data, lines if live else [*lines, "jobs       none"])


def stop_jobs(jobs: RayJobs, live: Iterable[str], reporter: Reporter) -> None:
    """Ask these jobs to end, and wait a while until their drivers have closed their runs."""
    left = list(live)
    for job_id in left:
        reporter.say(f"stopping {job_id} ...")
        jobs.stop(job_id)
    try:
        for _ in Deadline(JOBS_STOP_TIMEOUT_S).looks(POLL_S):
            if not (left and jobs.live_jobs()):
                break
    except ClusterError as error:
        reporter.warn(str(error))


def refuse_options(profile: Profile, options: Mapping[str, object]) -> None:
    """Raise InputError for an option that is of no use on a profile of this kind."""
    for option, value in options.items():
        if value not in (None, False):
            raise InputError(
                f"{option} is for profiles of kind kubernetes, but {profile.name} is of kind "
                f"{profile.kind}; name another with --cluster"
            )


def standard_token() -> str | None:
    """The token that Ray's own clients would use: from the environment or Ray's usual file."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    home = home_folder()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or (home and home / ".ray" / "auth_token")
    if not path:
        return None
    try:
        return Path(path).read_text("utf-8").strip() or None
    except OSError:
        return None
