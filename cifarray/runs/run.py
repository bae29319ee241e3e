"""A run, which is a folder of the store with a job, its status and its attempts."""

import dataclasses
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from cifarray.errors import (
    InputError,
    KeyMissingError,
    LeaseLostError,
    RunNotFoundError,
    StoreAwayError,
    StoreDamagedError,
    StoreError,
)
from cifarray.metrics import DEFAULT_OBJECTIVE, OBJECTIVES
from cifarray.runs import lease
from cifarray.runs.index import check_index, write_index
from cifarray.runs.metrics_log import read_metrics
from cifarray.runs.status import RunState, Status, now, read_status
from cifarray.spec.bounds import parse_yaml
from cifarray.spec.load import nearest, to_yaml
from cifarray.spec.run import RunSpec
from cifarray.store import Store, to_json
from cifarray.store.layout import (
    ATTEMPTS,
    INDEX_FILE,
    LEASE_FILE,
    LOG_FILE,
    REPORT,
    REPORT_FILE,
    RUNS,
    SPEC_FILE,
    STATUS_FILE,
    Place,
    attempt_number,
)
from cifarray.timers import every

WRITE_TRIES = 20
LONGEST_ID = 47
"""Length that KubeRay accepts for the name of a RayJob."""
ID_SUFFIX = re.compile(r"-(\d{6}-\d{6})-[0-9a-f]{4}$")


def new_run_id(job_name: str) -> str:
    """`<job>-<yymmdd>-<hhmmss>-<4 hex>`, a DNS-1035 label of at most 47 characters; UTC."""
    suffix = f"-{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    name = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-") or "job"
    name = name if name[0].isalpha() else f"job-{name}"
    return name[: LONGEST_ID - len(suffix)].rstrip("-") + suffix


def is_run_id(name: str) -> bool:
    """Whether `name` may be a run's id, and so a folder of the store and here."""
    return re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) is not None


def submitted_order(run_id: str) -> tuple[str, str]:
    """Sorts ids by the time in them; ids without one come before all others."""
    found = ID_SUFFIX.search(run_id)
    return (found.group(1) if found else "", run_id)


class Run:
    """One execution of a job. Reading it needs the store alone."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.id = run_id
        self.place = Place(run_id)

    @property
    def prefix(self) -> str:
        """Its folder in the store."""
        return self.place.prefix

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.store!r})"

    @staticmethod
    def create(store: Store, spec: RunSpec) -> "Run":
        """Write job.yaml, then a pending status. Raises: InputError if the id is taken."""
        if not is_run_id(spec.run_id):
            raise InputError(
                f"cannot name a run {spec.run_id!r}; an id has lower-case letters, digits and '-', "
                "begins with a letter and has at most 63 characters"
            )
        run = Run(store, spec.run_id)
        if store.create(run.key(SPEC_FILE), spec_bytes(spec)) is None:
            raise InputError(f"run {spec.run_id} already exists in {store.uri}; give another name")
        status = Status(
            "pending", job=spec.job.name, kind=spec.job.kind, submitted_at=spec.submitted_at
        )
        store.create(run.key(STATUS_FILE), run.encoded(status))
        return run

    @staticmethod
    def open(store: Store, run_id: str) -> "Run":
        """The run of this id, or the only one that begins so. Raises: RunNotFoundError."""
        if is_run_id(run_id) and store.exists(Place(run_id).key(SPEC_FILE)):
            return Run(store, run_id)
        known = [name for name in store.folders(RUNS) if is_run_id(name)]
        matches = [run_id] if run_id in known else [n for n in known if n.startswith(run_id)]
        if len(matches) == 1 and run_id:
            return Run(store, matches[0])
        raise RunNotFoundError(_not_found(store, run_id, known, matches))

    def key(self, *parts: str) -> str:
        """The store's key of a file of this run."""
        return self.place.key(*parts)

    def spec(self) -> RunSpec:
        """The recorded job.yaml. Raises: KeyMissingError, StoreDamagedError."""
        return read_spec(self.id, self.store.read(self.key(SPEC_FILE)))

    def objective(self) -> str:
        """The metric that chooses its best epoch; the default one if job.yaml is unreadable."""
        try:
            metric = self.spec().job.metric
        except (KeyMissingError, StoreDamagedError):
            return DEFAULT_OBJECTIVE
        return metric if metric in OBJECTIVES else DEFAULT_OBJECTIVE

    def status(self) -> Status:
        """The recorded status; what is missing or damaged shows as a state with an error."""
        return self.tagged_status()[0]

    def tagged_status(self) -> tuple[Status, str | None]:
        """The status and the tag of its version, None if it has never been written."""
        try:
            data, tag = self.store.read_tagged(self.key(STATUS_FILE))
        except KeyMissingError:
            return self._status_of_spec(), None
        return read_status(data), tag

    def _status_of_spec(self) -> Status:
        """The status of a run whose submission died between job.yaml and status.json."""
        try:
            spec = self.spec()
        except (KeyMissingError, StoreDamagedError) as error:
            return Status("failed", error=f"{STATUS_FILE} is missing, and {error}")
        return Status(
            "pending", job=spec.job.name, kind=spec.job.kind, submitted_at=spec.submitted_at
        )

    def change_status(self, change: Callable[[Status], Status]) -> Status:
        """Read, change and write the status as one step, whoever else writes it.

        A finished run stays one: what its attempt publishes no other may replace.
        Raises: InputError, StoreError.
        """
        for _ in range(WRITE_TRIES):
            status, tag = self.tagged_status()
            changed = change(status)
            if status.state == "finished" and changed.state != "finished":
                raise InputError(
                    f"run {self.id} has finished; look at it with `cifarray report {self.id}`"
                )
            if self.write_status(changed, tag) is not None:
                return changed
        raise StoreAwayError(
            f"{STATUS_FILE} of run {self.id} is being written by too many processes at once"
        )

    def write_status(self, status: Status, tag: str | None) -> str | None:
        """Write the status if nobody has since `tag`; the new tag, or None if somebody has."""
        key, data = self.key(STATUS_FILE), self.encoded(status)
        return self.store.create(key, data) if tag is None else self.store.replace(key, data, tag)

    @staticmethod
    def encoded(status: Status) -> bytes:
        """The status as stored; never the same bytes twice, because versions are told by them."""
        return to_json({"schema_version": 1, **status.to_dict(), "nonce": secrets.token_hex(8)})

    def set_cluster(self, cluster: dict[str, Any]) -> None:
        """Record where the run executes: profile, dashboard, job_id, address; never a token."""
        self.change_status(lambda status: dataclasses.replace(status, cluster=dict(cluster)))

    def mark_stopped(self, reason: str) -> None:
        """Record that a run was stopped; an attempt that still runs or just starts loses it."""
        for _ in range(WRITE_TRIES):
            if self._mark("stopped", reason):
                return
        raise StoreAwayError(f"attempts of run {self.id} start faster than they can be stopped")

    def mark_failed(self, error: str) -> None:
        """Record that a run could not be submitted; an attempt that still runs loses it.

        One that begins at this moment does not: it knows nothing of that failure.
        """
        self._mark("failed", error)

    def _mark(self, state: RunState, error: str) -> bool:
        """False if an attempt has begun meanwhile, which is left alone as a finished run is."""
        seen = self.status().attempts
        ended = max(seen, lease.take_away(self.store, self.key(LEASE_FILE)))

        def change(status: Status) -> Status:
            if status.state == "finished" or status.attempts > ended:
                return status
            return dataclasses.replace(status, state=state, error=error, ended_at=now())

        return self.change_status(change).attempts <= ended

    def start_attempt(self, owner: str, heartbeat_s: float = lease.HEARTBEAT_S) -> "Attempt":
        """Take charge of the run and begin, with nothing to build on."""
        attempt = self.take_charge(owner, heartbeat_s=heartbeat_s)
        attempt.begin()
        return attempt

    def take_charge(
        self,
        owner: str,
        process: Mapping[str, Any] | None = None,
        heartbeat_s: float = lease.HEARTBEAT_S,
    ) -> "Attempt":
        """The next attempt, with the lease; any older one has lost the run from now on.

        Readers see it once it begins. Raises: LeaseLostError if another one does so at this moment.
        """
        numbers = [*self.attempt_numbers(), self.status().attempts]
        holder = lease.Holder(0, owner, heartbeat_s, process)
        taken = lease.take(self.store, self.key(LEASE_FILE), holder, max(numbers))
        if taken is None:
            raise LeaseLostError(
                f"another attempt of run {self.id} started at the same moment and is in charge now"
            )
        return Attempt(self, taken)

    def read_heartbeat(self) -> tuple[lease.Holder, str | None]:
        """Who is in charge, and the tag that each of its heartbeats changes; None before any."""
        return lease.read(self.store, self.key(LEASE_FILE))

    def attempt_numbers(self) -> list[int]:
        """Numbers of the attempts that have written anything, ascending."""
        numbers = map(attempt_number, self.store.folders(self.key(ATTEMPTS)))
        return sorted(number for number in numbers if number is not None)

    def newest_attempt(self) -> int:
        """The only attempt whose folder readers use: the last one that has started; 0 without one.

        Older ones may still write to theirs.
        """
        return self.status().attempts or max(self.attempt_numbers(), default=0)

    def metrics(self) -> list[dict[str, Any]]:
        """A record per epoch of the run, as the newest attempt has them."""
        return read_metrics(self.store, self.place.of_attempt(self.newest_attempt()).prefix)

    def has_report(self) -> bool:
        """Whether there is a report whose bytes all agree with its index."""
        return not check_index(self.store, self.report_prefix())

    def report_prefix(self) -> str:
        """Where the report is: in the run's folder, or still in that of its last attempt."""
        published = self.key(REPORT)
        if not self.store.exists(f"{published}/{INDEX_FILE}"):
            status = self.status()
            own = self.place.of_attempt(status.attempts).key(REPORT)
            if status.state == "finished" and self.store.exists(f"{own}/{INDEX_FILE}"):
                return own
        return published

    def report(self) -> dict[str, Any]:
        """The content of report.json. Raises: InputError before there is one, StoreDamagedError."""
        prefix = self.report_prefix()
        problems = check_index(self.store, prefix)
        if problems:
            state = self.status().state
            kind = StoreDamagedError if state == "finished" else InputError
            raise kind(
                f"run {self.id} ({state}) has no complete report: {problems[0]}; a finished "
                f"attempt writes it, see `cifarray status {self.id}`"
            )
        report: dict[str, Any] = self.store.read_json(f"{prefix}/{REPORT_FILE}")
        return report

    def size_bytes(self) -> int:
        """Bytes of all its files in the store."""
        return sum(entry.size_bytes for entry in self.store.list(self.prefix))


class Attempt:
    """An attempt of a run. Once another one takes over, every call raises LeaseLostError."""

    def __init__(self, run: Run, held: lease.Lease) -> None:
        self.run = run
        self.number = held.holder.attempt
        self.place = run.place.of_attempt(self.number)
        self.lost = threading.Event()
        """Set once this attempt is known to be no longer in charge."""
        self._lease = held
        self._lock = threading.RLock()
        self._status: Status | None = None
        self._status_tag: str | None = None

    @property
    def prefix(self) -> str:
        """Its folder in the store."""
        return self.place.prefix

    def begin(self) -> None:
        """Show the run as running by this attempt, whose folder readers use from now on.

        What an earlier attempt reached as its best stays. Raises: LeaseLostError.
        """
        with self._lock:
            status = self._read_status()
            job = None if status.job else self.run.spec().job  # a status that was damaged
            self._write(
                state="running",
                attempts=self.number,
                job=job.name if job else status.job,
                kind=job.kind if job else status.kind,
                started_at=status.started_at or now(),
                heartbeat_at=now(),
                ended_at=None,
                error=None,
                progress=None,
            )

    def heartbeat(
        self, progress: dict[str, Any] | None = None, best: dict[str, Any] | None = None
    ) -> None:
        """Renew the lease and show that the run is alive, with its progress and best if given.

        Raises: LeaseLostError if another attempt took over; status.json is then left alone.
        """
        given: dict[str, Any] = {"progress": progress, "best": best}
        given = {name: value for name, value in given.items() if value is not None}
        with self._lock:
            self._renew()
            self._write(state="running", heartbeat_at=now(), **given)

    @contextmanager
    def keep_alive(self, every_s: float | None = None) -> Iterator["Attempt"]:
        """Heartbeat in the background; `lost` is set, and that ends, once the lease is gone."""
        every_s = every_s or self._lease.holder.heartbeat_s

        def send_heartbeat() -> bool:
            try:
                self.heartbeat()
            except LeaseLostError:
                return False
            except StoreError:
                pass  # a store that is away for a while is tried again
            return True

        with every(every_s, send_heartbeat, f"heartbeat of {self.run.id}", join_s=every_s):
            yield self

    def close(
        self, state: Literal["finished", "failed", "stopped"], error: str | None = None
    ) -> None:
        """Write the index of the attempt's files and the run's last status.

        A finished run is one whose index is there. An end that was forced comes first, since who
        forced it may give no time for more.
        """
        ended = {"state": state, "error": error}
        with self._lock:
            self._renew()
            if state != "finished":
                self._write(**ended, heartbeat_at=now(), ended_at=now())
            write_index(self.run.store, self.prefix, leave_out=(LOG_FILE,))
            if state == "finished":
                self._renew()
                self._write(**ended, heartbeat_at=now(), ended_at=now())

    def _renew(self) -> None:
        if self.lost.is_set() or not self._lease.renew():
            self._give_up()

    def _write(self, **changes: Any) -> None:
        """Change status.json if it is still this attempt's to change."""
        for _ in range(WRITE_TRIES):
            status = self._status or self._read_status()
            changed = dataclasses.replace(status, **changes)
            tag = self.run.write_status(changed, self._status_tag)
            if tag is not None:
                self._status, self._status_tag = changed, tag
                return
            self._status = None  # somebody else wrote it: the CLI, or an attempt that took over
        raise StoreAwayError(
            f"the status of run {self.run.id} is being written by too many processes at once"
        )

    def _read_status(self) -> Status:
        """The status as it is now, if this attempt may still change it.

        The lease is renewed after the reading, since whoever takes it away writes the status next:
        what was read is then either older than that, or this attempt hears of it here.
        """
        status, self._status_tag = self.run.tagged_status()
        if status.attempts > self.number:
            self._give_up()
        if status.state == "finished" and status.attempts < self.number:
            self.lost.set()
            raise LeaseLostError(
                f"run {self.run.id} was finished by attempt {status.attempts} before attempt "
                f"{self.number} could start; see `cifarray report {self.run.id}`"
            )
        self._renew()
        self._status = status
        return status

    def _give_up(self) -> None:
        self.lost.set()
        raise LeaseLostError(
            f"attempt {self.number} of run {self.run.id} is no longer in charge: "
            f"another attempt or a stop has taken over; see `cifarray status {self.run.id}`"
        )


def spec_bytes(spec: RunSpec) -> bytes:
    """job.yaml of a run."""
    return to_yaml(spec).encode()


def read_spec(run_id: str, data: bytes) -> RunSpec:
    """What job.yaml of a run says. Raises: StoreDamagedError."""
    try:
        return RunSpec.model_validate(parse_yaml(data))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise StoreDamagedError(f"{SPEC_FILE} of run {run_id} is damaged: {reason}") from error


def _not_found(store: Store, run_id: str, known: list[str], matches: list[str]) -> str:
    if not known:
        return (
            f"no run {run_id!r}: {store.uri} contains no runs; start one with `cifarray submit "
            "JOB`, or name another store with --store"
        )
    if run_id and len(matches) > 1:
        shown = ", ".join(sorted(matches)[:5])
        return f"{run_id!r} matches {len(matches)} runs: {shown}; give more of the id"
    recent = sorted(known, key=submitted_order)[-10:]
    return f"no run {run_id!r} in {store.uri}; {nearest(run_id, recent)}"
