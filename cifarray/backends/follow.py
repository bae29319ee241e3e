"""Follow a run to its end by reading the store; writes nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cifarray.backends.base import Backend
from cifarray.backends.observe import end_of, evidence_here, job_evidence
from cifarray.backends.progress_text import rough_time
from cifarray.errors import ClusterError, LeaseLostError, StoreAwayError
from cifarray.runs import ENDED, Evidence, Run, Status, cause_of_death, post_mortem
from cifarray.runs.liveness import NO_EVIDENCE, HeartbeatWatch
from cifarray.timers import Deadline

POLL_S = 1.0
ASK_EVERY_S = 4.0
ASK_PATIENCE_S = 3.0
STORE_PATIENCE_S = 1800.0
"""The same time for which a run waits for its store."""
CLOSING_S = 3.0
"""The driver's last status may appear shortly after the job has ended."""
LEAVING_S = 30.0
OLD_HEARTBEAT_S = 60.0
"""From this heartbeat age on, the age is shown."""
GIVE_UP_S = 3600.0
"""Following ends after this time without heartbeats or other signs of the run."""
LONGEST_GAP_S = 30.0
SHOWN_LINES = 15

Show = Callable[[Status, str], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: by its last status, or by the cause of its death."""

    run: Run
    status: Status
    cause: str = ""
    """Why it is certainly dead, though its record says otherwise; empty if it has ended."""

    @property
    def state(self) -> str:
        """As it is shown to people."""
        return "lost" if self.cause else self.status.state


class Follower:
    """Watches one run and its job."""

    def __init__(
        self,
        run: Run,
        cluster: Backend | None,
        job_id: str | None,
        *,
        patience_s: float = ASK_PATIENCE_S,
        closing_s: float = CLOSING_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.run = run
        self.job_id = job_id
        self._cluster = cluster
        self._closing_s = closing_s
        self._jobs = cluster.jobs(patience_s) if cluster and job_id else None
        self._clock, self._sleep = clock, sleep
        self._watch = HeartbeatWatch(LONGEST_GAP_S, clock)
        self._asked = float("-inf")
        self._evidence, self._waits_for = NO_EVIDENCE, ""

    def follow(self, show: Show, poll_s: float = POLL_S) -> Outcome:
        """Call `show(status, remark)` with what is new until the run has ended, or is dead.

        Raises: StoreError if the store stays away or refuses, LeaseLostError if another job took
        over.
        """
        while True:
            status, unmoved_s = self._read_status(show)
            if status.state in ENDED:
                show(status, "")
                self._wait_for_job()
                return Outcome(self.run, status)
            cause = self._cause_of_death(status, unmoved_s)
            if cause:
                self._sleep(self._closing_s)
                status, _ = self._read_status(show)
                self._refuse_other_job(status)
                if status.state in ENDED:
                    show(status, "")
                    return Outcome(self.run, status)
                cause = self._how_its_job_ended() or cause
                show(status, cause)
                return Outcome(self.run, status, cause)
            show(status, self._remark(status, unmoved_s))
            self._sleep(poll_s)

    def _wait_for_job(self) -> None:
        """Wait until the driver has ended: it stores its log last, and occupies the node."""
        deadline = Deadline(LEAVING_S, self._clock)
        try:
            while self._jobs and self.job_id and not deadline.is_over:
                job = self._jobs.find(self.job_id)
                if job is None or job.status != "RUNNING":
                    return
                self._sleep(0.2)
        except ClusterError:
            return

    def last_lines(self, count: int = SHOWN_LINES) -> list[str]:
        """The end of the driver's log, from the cluster or, once that is gone, from the store."""
        text = ""
        if self._jobs and self.job_id:
            try:
                text = self._jobs.logs(self.job_id)
            except ClusterError:
                text = ""
        return (text or stored_log(self.run)).rstrip().splitlines()[-count:]

    def _read_status(self, show: Show) -> tuple[Status, float]:
        """The status, and for how long it has been seen not to change."""
        began, last = self._clock(), None
        while True:
            try:
                status, tag = self.run.tagged_status()
                return status, self._watch.see(self.run.id, tag)
            except StoreAwayError as error:
                waited_s = self._clock() - began
                if waited_s >= STORE_PATIENCE_S:
                    raise
                last = last or Status("pending")
                show(last, f"waiting for the store for {rough_time(waited_s)} ({error})")
                self._sleep(POLL_S)

    def _cause_of_death(self, status: Status, unmoved_s: float) -> str:
        """Why the run is certainly dead; empty while that is not known. Raises: LeaseLostError."""
        if self._clock() - self._asked >= ASK_EVERY_S:
            self._asked = self._clock()
            self._refuse_other_job(status)
            self._evidence = self._ask(status)
        return cause_of_death(status, self._evidence, unmoved_s if unmoved_s > GIVE_UP_S else None)

    def _how_its_job_ended(self) -> str:
        """The cluster may know why the process is gone."""
        try:
            job = self._jobs.find(self.job_id) if self._jobs and self.job_id else None
        except ClusterError:
            return ""
        return end_of(job) if job is not None and job.ended else ""

    def _refuse_other_job(self, status: Status) -> None:
        recorded = (status.cluster or {}).get("job_id")
        if self.job_id and recorded != self.job_id:
            raise LeaseLostError(
                f"job {recorded} has taken over run {self.run.id}; "
                f"follow it with `cifarray logs {self.run.id} -f`"
            )

    def _ask(self, status: Status) -> Evidence:
        """What is known for certain about the run now, and what its job waits for."""
        self._waits_for = ""
        try:
            here = evidence_here(self.run, status)
        except StoreAwayError as error:
            return Evidence(doubt=str(error))
        if here.dead or here.alive or self._jobs is None or self.job_id is None:
            return here
        try:
            job = self._jobs.find(self.job_id)
            if job is not None and job.status == "PENDING":
                self._waits_for = self._jobs.why_pending(self.job_id)
        except ClusterError as error:
            return replace(here, doubt=str(error))
        return job_evidence(status, self.job_id, job, self._cluster)

    def _remark(self, status: Status, unmoved_s: float) -> str:
        """What the run waits for, or what is unknown."""
        if self._waits_for:
            return self._waits_for
        is_old = status.state == "running" and unmoved_s > OLD_HEARTBEAT_S
        said = f"no heartbeat for {rough_time(unmoved_s)}" if is_old else ""
        return "; ".join(filter(None, (said, self._evidence.doubt)))


def stored_log(run: Run) -> str:
    """The driver's log of the newest attempt that left one in the store; else empty."""
    return post_mortem.stored_log(run)[1]
