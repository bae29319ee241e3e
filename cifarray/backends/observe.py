"""What is known for certain about a run: its record, this machine's processes, and its cluster.

Observing writes nothing. A run that is recorded as live but certainly dead is shown as lost; a run
without recent heartbeats is shown as recorded, with a remark.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cifarray.backends.base import Backend, SubmittedJob
from cifarray.backends.choice import recorded_class
from cifarray.backends.local import processes
from cifarray.backends.local.backend import is_from_here
from cifarray.backends.local.node import has_ended
from cifarray.backends.progress_text import rough_time, waits_for
from cifarray.backends.trust import recorded_backend
from cifarray.errors import ClusterError, UntrustedError
from cifarray.runs import ENDED, Evidence, Run, RunSummary, Status, cause_of_death, heartbeat_age_s
from cifarray.runs.lease import Holder
from cifarray.runs.liveness import NO_EVIDENCE, lease_evidence
from cifarray.spec.profile import Profile

PATIENCE_S = 5.0
"""Commands that only look at a run must not wait long for a cluster that does not answer."""
OLD_HEARTBEAT_S = 60.0
"""Above this heartbeat age, by this machine's clock, the cluster is asked about a running run."""


def evidence_here(run: Run, status: Status) -> Evidence:
    """What the run's lease and the processes of this machine say, without asking a cluster."""
    holder, _ = run.read_heartbeat()
    record = status.cluster or {}
    for found in (lease_evidence(status, holder), _of_process(status, holder)):
        if found != NO_EVIDENCE:
            return found
    if not record.get("own"):
        return NO_EVIDENCE
    if not is_from_here(record):
        return Evidence(doubt=f"its Ray node is on machine {record.get('host')}")
    if has_ended(str(record.get("dashboard"))):
        return Evidence(dead="the Ray node of this machine that it ran on has ended")
    return NO_EVIDENCE


def _of_process(status: Status, holder: Holder) -> Evidence:
    """What is known about the driver's process; a pending run's next driver is another process."""
    alive = processes.recorded_is_alive(holder.process) if holder.process else None
    if alive is None or holder.process is None:
        return NO_EVIDENCE
    pid = holder.process["pid"]
    if alive:
        return Evidence(alive=f"its driver, process {pid}, is running")
    if status.state != "running":
        return NO_EVIDENCE
    return Evidence(dead=f"its driver, process {pid} of this machine, has ended")


def job_evidence(
    status: Status, job_id: str, job: SubmittedJob | None, cluster: Backend | None
) -> Evidence:
    """What a cluster's answer about the run's job shows; None: the cluster has no such job.

    For a run that has started this is its end, if the answer certainly came from the run's cluster.
    """
    if job is None:
        said = f"{cluster.answers_as if cluster else 'its cluster'} has no job {job_id}"
        has_begun = status.state == "running"
        certain = cluster is not None and cluster.certain
        return Evidence(dead=said) if has_begun and certain else Evidence(doubt=said)
    if job.ended:
        return Evidence(dead=end_of(job))
    return Evidence(alive=f"job {job_id} is {job.status.lower()}")


def end_of(job: SubmittedJob) -> str:
    """How a job ended, in words."""
    if job.status == "STOPPED":
        return f"job {job.id} was stopped"
    code = job.exit_code
    if code is not None and (code < 0 or code > 128):
        number = -code if code < 0 else code - 128
        hint = ", which happens when memory runs out" if number == 9 else ""
        return f"its driver was killed by signal {number}{hint}"
    if code is not None:
        return f"its driver ended with exit code {code} without closing the run"
    first = job.message.strip().splitlines()
    return f"job {job.id} has ended" + (f" ({first[0][:300]})" if first else "")


@dataclass
class EvidenceCollector:
    """Asks for evidence on runs; `many` asks each cluster once, for all of its jobs.

    A user's Ray cluster is asked only `before_acts`: commands that only look send no token to an
    address that a record names.
    """

    named: Profile | None = None
    """The profile that the command names says how the runs' Kubernetes cluster is reached."""
    patience_s: float = PATIENCE_S
    many: bool = False
    before_acts: bool = True
    _asked: dict[str, "Answer"] = field(default_factory=dict)

    def evidence(self, run: Run, status: Status) -> Evidence:
        """All that can be learned about a run: here, or else from its cluster."""
        here = evidence_here(run, status)
        if here.dead or here.alive:
            return here
        told = self.ask(run, status).evidence
        return here if told == NO_EVIDENCE else told

    def ask(self, run: Run, status: Status) -> "Answer":
        """What the run's cluster says of its job."""
        record = status.cluster or {}
        job_id = record.get("job_id")
        asked = job_id and recorded_class(record).may_be_asked(record, self.before_acts)
        if not job_id or not asked:
            return Answer()
        known = self._jobs_of(run, record) if self.many else self._one(run, record, str(job_id))
        if known.jobs is None:
            return known
        job = known.jobs.get(str(job_id))
        return Answer(
            known.cluster, known.jobs, job, job_evidence(status, str(job_id), job, known.cluster)
        )

    def _one(self, run: Run, record: Mapping[str, Any], job_id: str) -> "Answer":
        cluster = None
        try:
            cluster = recorded_backend(run, record, self.named, self.patience_s)
            if cluster is None:
                return Answer()
            job = cluster.jobs(self.patience_s).find(job_id)
        except ClusterError as error:
            return Answer(cluster, evidence=Evidence(doubt=_why_unanswered(cluster, error)))
        return Answer(cluster, {job_id: job} if job else {})

    def _jobs_of(self, run: Run, record: Mapping[str, Any]) -> "Answer":
        try:
            place = recorded_class(record).place_of(record)
            if place not in self._asked:
                self._asked[place] = self._all(run, record)
        except ClusterError as error:  # says nothing about other runs there
            return Answer(evidence=Evidence(doubt=str(error)))
        return self._asked[place]

    def _all(self, run: Run, record: Mapping[str, Any]) -> "Answer":
        cluster = None
        try:
            cluster = recorded_backend(run, record, self.named, self.patience_s)
            if cluster is None:
                return Answer()
            jobs = cluster.jobs(self.patience_s).all_jobs()
        except UntrustedError:
            raise
        except ClusterError as error:
            return Answer(cluster, evidence=Evidence(doubt=str(error)))
        return Answer(cluster, {job.id: job for job in jobs})


@dataclass(frozen=True)
class Answer:
    """A cluster's answer; without `jobs` there was none."""

    cluster: Backend | None = None
    jobs: Mapping[str, SubmittedJob] | None = None
    job: SubmittedJob | None = None
    evidence: Evidence = NO_EVIDENCE


def _why_unanswered(cluster: Backend | None, error: ClusterError) -> str:
    try:
        return (cluster.why_unanswered() if cluster else "") or str(error)
    except ClusterError as unanswered:
        return str(unanswered)


@dataclass(frozen=True)
class ObservedState:
    """A run's state for people, and one sentence on what it waits for or why it died."""

    state: str
    reason: str = ""
    heartbeat_age_s: float | None = None
    """Of a running run whose last heartbeat is old, by this machine's clock."""


def observe(run: Run, status: Status, named: Profile | None = None) -> ObservedState:
    """The run's state. A profile that the command names says how its cluster is reached."""
    return _observe(run, status, EvidenceCollector(named, before_acts=False))


def observe_all(
    summaries: Iterable[RunSummary], named: Profile | None = None
) -> list[ObservedState]:
    """The states of many runs: each cluster is asked once, and for no reason of waiting."""
    witness = EvidenceCollector(named, many=True, before_acts=False)
    return [_observe(summary.run, summary.status, witness) for summary in summaries]


def _observe(run: Run, status: Status, witness: EvidenceCollector) -> ObservedState:
    if status.state in ENDED:
        return ObservedState(status.state)
    here = evidence_here(run, status)
    if cause := cause_of_death(status, here):
        # Its cluster may know more.
        told = NO_EVIDENCE if witness.many else witness.ask(run, status).evidence
        return _lost(run, told.dead or cause, "")
    age_s = heartbeat_age_s(status)
    old_s = age_s if age_s is not None and age_s > OLD_HEARTBEAT_S else None
    waited_for = waits_for(status)
    if status.state == "running" and old_s is None and not (waited_for and not witness.many):
        return ObservedState("running")
    if here.alive:
        answer = Answer()
    else:
        answer = witness.ask(run, status)
        status = run.status()  # a driver records its end before its job ends
        if status.state in ENDED:
            return ObservedState(status.state)
    if waited_for and old_s is None:
        cause = _pods_lack(status, answer)
        return ObservedState("running", cause or f"it waits for {waited_for}")
    evidence = answer.evidence if answer.evidence != NO_EVIDENCE else here
    because = "" if witness.many else _cause(answer)
    if cause := cause_of_death(status, evidence):
        return _lost(run, cause, because)
    if status.state == "pending":
        return ObservedState("pending", because or evidence.doubt)
    if old_s is None:
        return ObservedState("running")
    said = f"its last heartbeat was {rough_time(old_s)} ago by this machine's clock"
    known = evidence.alive or evidence.doubt
    return ObservedState("running", "; ".join(filter(None, (said, known, because))), old_s)


def _lost(run: Run, cause: str, because: str) -> ObservedState:
    reason = f"{cause}: {because}" if because else cause
    return ObservedState("lost", f"{reason}; `cifarray resume {run.id}` continues it")


def _pods_lack(status: Status, answer: Answer) -> str:
    """What the pods of a run that waits for capacity lack."""
    try:
        job_id = str((status.cluster or {}).get("job_id"))
        return answer.cluster.explain(job_id) if answer.cluster else ""
    except ClusterError as error:
        return str(error)


def _cause(answer: Answer) -> str:
    """What a run's job waits for, or why it has ended."""
    cluster, job = answer.cluster, answer.job
    if cluster is None or job is None:
        return ""
    try:
        if job.ended:
            return cluster.why_ended(job.id)
        return cluster.jobs(PATIENCE_S).why_pending(job.id)
    except ClusterError:
        return ""
