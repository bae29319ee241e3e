"""The rule that decides whether a run is dead, and the heartbeat readings that it may use.

A run ends when its driver records the end, or by a stop. Otherwise it counts as dead only by
evidence. Missing heartbeats alone, or an age by some clock, are a doubt, which is shown but never
acted on.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cifarray.errors import InputError
from cifarray.runs.lease import Holder
from cifarray.runs.listing import in_parallel
from cifarray.runs.run import Run
from cifarray.runs.status import ENDED, Status
from cifarray.timers import Deadline

INTERVALS = 3.0
"""This many heartbeats must be missing: one may be late while a store is slow."""
LOOKS = 12
"""How often a heartbeat is read within that time."""
LONGEST = 10.0
"""How many times longer the watch may take if it has to start again."""


@dataclass(frozen=True)
class Evidence:
    """What is known for certain about a run's driver beyond its own record."""

    dead: str = ""
    """Why it is dead: its process, its job or its lease is gone."""
    alive: str = ""
    """What shows that it is alive, or has not started yet."""
    doubt: str = ""
    """Why nothing could be learned."""


NO_EVIDENCE = Evidence()
EvidenceOf = Callable[[Run, Status], Evidence]


def cause_of_death(status: Status, evidence: Evidence, unmoved_s: float | None = None) -> str:
    """Why a run that has not ended is certainly dead; empty if it is not known to be.

    `unmoved_s` is how long its heartbeat was seen not to move, given only by who has watched it for
    longer than `look_s`. A pending run has no heartbeat.
    """
    if status.state in ENDED or evidence.alive:
        return ""
    if evidence.dead:
        return evidence.dead
    if status.state == "running" and unmoved_s is not None:
        return f"no heartbeat for {unmoved_s:.0f} s"
    return ""


def lease_evidence(status: Status, holder: Holder) -> Evidence:
    """What the lease of a run says: an attempt from which it was taken writes nothing any more."""
    if status.state == "running" and holder.is_nobody:
        return Evidence(dead="its lease was taken away by a stop that did not record the end")
    return NO_EVIDENCE


def look_s(holder: Holder) -> float:
    """How long a heartbeat must stay unchanged until its attempt counts as dead."""
    return INTERVALS * holder.heartbeat_s


class HeartbeatWatch:
    """Measures how long heartbeats stay unchanged, by this process's own clock, while it watches.

    A gap restarts the watch: a process that was suspended, or waited for the store, has seen
    nothing meanwhile, and the same cause may have held up the driver too.
    """

    def __init__(self, longest_gap_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap_s, self._clock = longest_gap_s, clock
        self._seen: dict[str, tuple[str | None, float, float]] = {}

    def see(self, run_id: str, tag: str | None) -> float:
        """Record a heartbeat's tag; the seconds for which it has been seen unchanged."""
        now = self._clock()
        before, since, last = self._seen.get(run_id, (None, now, now))
        if tag is None or tag != before or now - last > self._longest_gap_s:
            since = now
        self._seen[run_id] = (tag, since, now)
        return now - since

    def forget(self, run_ids: Iterable[str]) -> None:
        """Forget all runs but these."""
        kept = set(run_ids)
        self._seen = {run_id: seen for run_id, seen in self._seen.items() if run_id in kept}


@dataclass(frozen=True)
class Examined:
    """A run that was examined before an action that cannot be undone."""

    run: Run
    status: Status
    cause: str
    """Why it is dead; empty if its driver recorded its end, or if it may be alive."""
    evidence: Evidence = NO_EVIDENCE
    attempt: int = 0
    tag: str | None = None
    """Of the heartbeat that was read last."""

    @property
    def is_over(self) -> bool:
        """Whether no process works on it or will."""
        return self.status.state in ENDED or bool(self.cause)

    @property
    def is_doubtful(self) -> bool:
        """Whether its heartbeat must be watched to know more."""
        return self.status.state == "running" and not (self.is_over or self.evidence.alive)


def examine(
    runs: Iterable[Run],
    evidence_of: EvidenceOf,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Examined]:
    """Whether runs are over, by evidence or else by watching their heartbeats.

    All runs are watched at the same time, which `say` announces. Raises: StoreError.
    """
    found = {each.run.id: each for each in in_parallel(lambda run: _glance(run, evidence_of), runs)}
    doubtful = [each.run for each in found.values() if each.is_doubtful]
    if doubtful:
        for run, watched in _watch(doubtful, say, clock, sleep).items():
            found[run.id] = _glance(run, evidence_of, watched)
    return list(found.values())


@dataclass(frozen=True)
class _Watched:
    """The heartbeat of a run that was read last, and how long it was seen not to move."""

    tag: str | None
    unmoved_s: float
    moves: bool


def _watch(
    runs: Sequence[Run],
    say: Callable[[str], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> dict[Run, _Watched]:
    """Read the heartbeats of these runs until each has changed, or has not for long enough."""
    first = in_parallel(Run.read_heartbeat, runs)
    time_s = max(look_s(holder) for holder, _ in first)
    whose = f"of {runs[0].id}" if len(runs) == 1 else f"of {len(runs)} runs"
    say(f"watching the heartbeat {whose} for {time_s:.0f} s ...")
    pause_s, deadline = time_s / LOOKS, Deadline(LONGEST * time_s, clock)
    watch = HeartbeatWatch(max(1.0, 3 * pause_s), clock)
    tags = {run: tag for run, (_, tag) in zip(runs, first, strict=True)}
    watched = {run: _Watched(tag, watch.see(run.id, tag), False) for run, tag in tags.items()}
    left = list(runs)
    while left and not deadline.is_over:
        sleep(pause_s)
        for run, (holder, tag) in zip(left, in_parallel(Run.read_heartbeat, left), strict=True):
            seen = _Watched(tag, watch.see(run.id, tag), tag != tags[run])
            watched[run] = seen
            if tag is None or seen.moves or seen.unmoved_s > look_s(holder):
                left = [each for each in left if each is not run]
    return watched


def _glance(run: Run, evidence_of: EvidenceOf, watched: _Watched | None = None) -> Examined:
    """A run as it is now, after its heartbeat was watched, if it was."""
    before = run.status()
    if before.state in ENDED:
        return Examined(run, before, "")
    evidence = evidence_of(run, before)
    holder, tag = run.read_heartbeat()
    status = run.status()  # a driver records its end before its job ends
    if status.state != before.state:
        evidence = NO_EVIDENCE
    unmoved_s = None
    if watched is not None and watched.moves:
        evidence = Evidence(alive="its heartbeat is alive")
    elif watched is not None and tag == watched.tag and watched.unmoved_s > look_s(holder):
        unmoved_s = watched.unmoved_s
    cause = cause_of_death(status, evidence, unmoved_s)
    return Examined(run, status, cause, evidence, holder.attempt, tag)


def refuse_live(examined: Examined) -> None:
    """Raise InputError if a process works on the run, or may."""
    if examined.is_over:
        return
    run_id, evidence = examined.run.id, examined.evidence
    known = evidence.alive or evidence.doubt
    because = f" ({known})" if known else ""
    raise InputError(
        f"run {run_id} is {examined.status.state}; stop it first with `cifarray stop {run_id}`"
        f"{because}"
    )
