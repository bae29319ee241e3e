"""A run's state as it is observed: its record, this machine's processes, and what its cluster says.

Observing writes nothing. A run that is recorded as live and certainly dead is shown as lost; one of
which nothing is heard is shown as it is recorded, with the doubt beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cifarray.backends.evidence import PATIENCE_S, Answer, Witness, evidence_here
from cifarray.backends.kubernetes.backend import KubernetesCluster
from cifarray.backends.news import rough_time, waits_for
from cifarray.errors import ClusterError
from cifarray.runs import ENDED, Run, RunSummary, Status, cause_of_death, heartbeat_age_s
from cifarray.runs.liveness import NO_EVIDENCE
from cifarray.spec.profile import Profile

SILENT_S = 60.0
"""A running run whose heartbeat is older than this by this machine's clock is asked about."""


@dataclass(frozen=True)
class ObservedState:
    """A run's state for people, and one sentence on what it waits for, died of, or leaves open."""

    state: str
    reason: str = ""
    silent_s: float | None = None
    """For how long nothing has been heard of a running run, by this machine's clock."""


def observe(run: Run, status: Status, named: Profile | None = None) -> ObservedState:
    """The run's state. A profile that the command names says how its cluster is reached."""
    return _observe(run, status, Witness(named, before_acts=False))


def observe_all(
    summaries: Iterable[RunSummary], named: Profile | None = None
) -> list[ObservedState]:
    """The states of many runs: each cluster is asked once, and for no reason of waiting."""
    witness = Witness(named, many=True, before_acts=False)
    return [_observe(summary.run, summary.status, witness) for summary in summaries]


def _observe(run: Run, status: Status, witness: Witness) -> ObservedState:
    if status.state in ENDED:
        return ObservedState(status.state)
    here = evidence_here(run, status)
    if cause := cause_of_death(status, here):
        # Its cluster may know more.
        told = NO_EVIDENCE if witness.many else witness.ask(run, status).evidence
        return _lost(run, told.dead or cause, "")
    age_s = heartbeat_age_s(status)
    silent_s = age_s if age_s is not None and age_s > SILENT_S else None
    waited_for = waits_for(status)
    if status.state == "running" and silent_s is None and not (waited_for and not witness.many):
        return ObservedState("running")
    if here.alive:
        answer = Answer()
    else:
        answer = witness.ask(run, status)
        status = run.status()  # a driver's last word comes before its job's end
        if status.state in ENDED:
            return ObservedState(status.state)
    if waited_for and silent_s is None:
        cause = _pods_lack(status, answer)
        return ObservedState("running", cause or f"it waits for {waited_for}")
    evidence = answer.evidence if answer.evidence != NO_EVIDENCE else here
    because = "" if witness.many else _cause(answer)
    if cause := cause_of_death(status, evidence):
        return _lost(run, cause, because)
    if status.state == "pending":
        return ObservedState("pending", because or evidence.doubt)
    if silent_s is None:
        return ObservedState("running")
    said = f"its driver has been silent for {rough_time(silent_s)} by this machine's clock"
    known = evidence.alive or evidence.doubt
    return ObservedState("running", "; ".join(filter(None, (said, known, because))), silent_s)


def _lost(run: Run, cause: str, because: str) -> ObservedState:
    reason = f"{cause}: {because}" if because else cause
    return ObservedState("lost", f"{reason}; `cifarray resume {run.id}` goes on with it")


def _pods_lack(status: Status, answer: Answer) -> str:
    """What the pods of a run lack that waits for room."""
    if not isinstance(answer.cluster, KubernetesCluster):
        return ""
    try:
        return answer.cluster.explain(str((status.cluster or {}).get("job_id")))
    except ClusterError as error:
        return str(error)


def _cause(answer: Answer) -> str:
    """What a run's job waits for, or why it has ended."""
    cluster, job = answer.cluster, answer.job
    if cluster is None or job is None:
        return ""
    try:
        if not job.ended:
            return cluster.jobs(PATIENCE_S).why_pending(job.id)
        if isinstance(cluster, KubernetesCluster) and not cluster.shared:
            return cluster.explain(job.id)  # else its pods are other runs' too
    except ClusterError:
        return ""
    return ""
