"""Follow a run from the store, and close it when its job has died without doing so."""

import time
from collections.abc import Callable

from cifarray.errors import ClusterError, LeaseLostError, StoreError
from cifarray.runs import ENDED, LOST_AFTER_S, Run, Status, post_mortem
from cifarray.runs.status import shown_state
from cifarray.submit.cluster import Cluster
from cifarray.submit.jobs_api import RayJob
from cifarray.submit.kubernetes.cluster import KubernetesCluster
from cifarray.submit.news import seconds_since

POLL_S = 1.0
ASK_EVERY_S = 4.0
ASK_PATIENCE_S = 3.0
STORE_PATIENCE_S = 60.0
CLOSING_S = 3.0
"""The driver's last status may appear a moment after the job has ended."""
LEAVING_S = 30.0
SHOWN_LINES = 15


class Follower:
    """Watches one run and the job that carries it out."""

    def __init__(
        self,
        run: Run,
        cluster: Cluster | KubernetesCluster | None,
        job_id: str | None,
        *,
        patience_s: float = ASK_PATIENCE_S,
        closing_s: float = CLOSING_S,
        silence_s: float = LOST_AFTER_S,
    ) -> None:
        self.run = run
        self.job_id = job_id
        self._cluster = cluster
        self._closing_s = closing_s
        self._silence_s = silence_s
        self._jobs = cluster.jobs(patience_s) if cluster and job_id else None
        self._asked = float("-inf")
        self._silent_since: float | None = None
        self._remark = ""

    def follow(self, show: Callable[[Status, str], None], poll_s: float = POLL_S) -> Status:
        """Call `show(status, remark)` with news until the run has ended; its last status.

        Raises: StoreError if the store stays away, LeaseLostError if another job took over,
        ClusterError if a Kubernetes cluster stays away, which goes on with the run meanwhile.
        """
        while True:
            status = self._read_status()
            if status.state in ENDED:
                show(status, "")
                self._wait_for_job()
                return status
            closed = self._close_if_dead(status)
            if closed is not None:
                show(closed, "")
                return closed
            show(status, self._remark)
            time.sleep(poll_s)

    def _wait_for_job(self) -> None:
        """Let the driver leave: it stores its log after the last status, and holds the node."""
        deadline = time.monotonic() + LEAVING_S
        try:
            while self._jobs and self.job_id and time.monotonic() < deadline:
                job = self._jobs.find(self.job_id)
                if job is None or job.status != "RUNNING":
                    return
                time.sleep(0.2)
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

    def _read_status(self) -> Status:
        deadline = time.monotonic() + STORE_PATIENCE_S
        while True:
            try:
                return self.run.status()
            except StoreError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(POLL_S)

    def _close_if_dead(self, status: Status) -> Status | None:
        """Mark the run as ended if nobody works on it any more; its status then, else None."""
        if time.monotonic() - self._asked < ASK_EVERY_S:
            return None
        self._asked = time.monotonic()
        recorded = (status.cluster or {}).get("job_id")
        if self.job_id and recorded != self.job_id:
            raise LeaseLostError(
                f"job {recorded} has taken over run {self.run.id}; "
                f"follow it with `cifarray logs {self.run.id} -f`"
            )
        end = self._end_of_job(status)
        if end is None:
            return None
        time.sleep(self._closing_s)
        status = self._read_status()
        return status if status.state in ENDED else close(self.run, *end)

    def _end_of_job(self, status: Status) -> tuple[str, str] | None:
        """(state, reason) if the job has ended or is out of reach for too long.

        Raises: ClusterError where whatever is out of reach may well go on with the run.
        """
        if self._jobs is None or self._cluster is None or self.job_id is None:
            return lost(status)
        try:
            job = self._jobs.find(self.job_id)
        except ClusterError as error:
            self._silent_since = self._silent_since or time.monotonic()
            self._remark = str(error)
            if self._cluster.is_gone():
                return "failed", "the Ray node ended while the run was on it"
            if time.monotonic() - self._silent_since <= self._silence_s:
                return None
            if isinstance(self._cluster, KubernetesCluster):
                raise ClusterError(
                    f"{error}; run {self.run.id} goes on without this command if its cluster does"
                ) from error
            return lost(status)
        self._silent_since = None
        self._remark = self._waits_for() if job is not None and job.status == "PENDING" else ""
        return end_of(job)

    def _waits_for(self) -> str:
        """What our job waits for."""
        assert self._jobs is not None and self.job_id is not None
        try:
            return self._jobs.why_pending(self.job_id)
        except ClusterError:
            return ""


def end_of(job: RayJob | None) -> tuple[str, str] | None:
    """(state, reason) of a job that has ended, None for one that lives."""
    if job is None:
        return "failed", "the cluster does not know its job any more"
    if not job.ended:
        return None
    if job.status == "STOPPED":
        return "stopped", "its job was stopped"
    code = job.exit_code
    if code is not None and (code < 0 or code > 128):
        number = -code if code < 0 else code - 128
        hint = ", as happens when memory runs out" if number == 9 else ""
        return "failed", f"its driver was killed by signal {number}{hint}"
    if code is not None:
        return "failed", f"its driver ended with exit code {code} without closing the run"
    first = job.message.strip().splitlines()
    return "failed", f"its job failed: {first[0][:300]}" if first else "its job failed"


def lost(status: Status) -> tuple[str, str] | None:
    """(state, reason) for a run whose driver has been silent for too long."""
    waiting_s = seconds_since(status.heartbeat_at or status.submitted_at)
    if shown_state(status) == "lost" or (status.state == "pending" and waiting_s > LOST_AFTER_S):
        return "failed", f"nothing has been heard of its driver for {waiting_s:.0f} s"
    return None


def close(run: Run, state: str, reason: str) -> Status:
    """Record the end of a run whose driver could not; its status then."""
    if state == "stopped":
        run.mark_stopped(reason)
    else:
        run.mark_failed(f"{reason}; `cifarray resume {run.id}` goes on from its last checkpoint")
    return run.status()


def stored_log(run: Run) -> str:
    """The driver's log of the newest attempt that left one in the store; else empty."""
    return post_mortem.stored_log(run)[1]
