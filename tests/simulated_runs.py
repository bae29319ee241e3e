"""A run with everything around it on simulated clocks: each part stands still at random.

The decisions are the project's own: the follower, the exporter's watch, what `resume`, `delete` and
`prune` ask before they act, the attempt and its lease. Simulated are time, the driver's work, the
dashboard's answers and the store's bytes.
"""

import heapq
import itertools
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal

from cifarray.backends.base import SubmittedJob, reopen
from cifarray.backends.follow import Follower, Outcome
from cifarray.backends.local.processes import find_process, this_process
from cifarray.backends.observe import evidence_here, job_evidence
from cifarray.errors import (
    ClusterError,
    InputError,
    KeyMissingError,
    LeaseLostError,
    StoreAwayError,
)
from cifarray.monitoring.exporter import StoreWatch
from cifarray.runs import (
    ENDED,
    Attempt,
    Evidence,
    Examined,
    Run,
    Status,
    delete_run,
    examine,
    execute_plan,
    plan_prune,
    refuse_live,
)
from tests.memory_store import MemoryStore

PARTS = ("dashboard", "driver", "store", "command line")
STORE_PATIENCE_S = 14.0
HEARTBEAT_S = 15.0
Part = Literal["dashboard", "driver", "store", "command line"]


@dataclass(frozen=True)
class Schedule:
    """What happens to one run, drawn from a seed."""

    pauses: Mapping[str, list[tuple[float, float]]]
    """When each part stands still, from and to."""
    is_here: bool
    """Whether commands are typed on the driver's machine, which sees its process."""
    queued_s: float
    work_s: float
    crashes_at: float | None
    clock_ahead_s: float
    """Of the driver's machine, against the one where commands are typed."""
    commands: list[tuple[float, str]]
    is_exported: bool = False
    """Whether an exporter watches the store."""

    @staticmethod
    def drawn(random: Random) -> "Schedule":
        """Pauses of 1 to 600 s of every part, of several at once too."""
        pauses: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}
        for _ in range(random.randint(1, 5)):
            begin = random.uniform(1, 900)
            end = begin + random.uniform(1, 600)
            for part in random.sample(PARTS, random.choice((1, 1, 1, 2, 3, 4))):
                pauses[part].append((begin, end))
        is_here = random.random() < 0.5
        commands = ["resume", "resume", "delete", "prune"]
        if not is_here and pauses["driver"] and pauses["dashboard"]:
            # From afar a driver that stands still with all that could vouch for it is dead by the
            # rule. A resume then only begins its next attempt.
            commands = ["resume"]
        typed = [
            (random.uniform(0, 1500), random.choice(commands)) for _ in range(random.randint(0, 3))
        ]
        crashes_at = random.uniform(0, 1200) if random.random() < 0.2 else None
        ahead_s = random.choice((0.0, 300.0, -300.0, 86400.0, -86400.0))
        queued_s = random.choice((0.0, random.uniform(0, 600)))
        return Schedule(
            pauses, is_here, queued_s, random.uniform(60, 900), crashes_at, ahead_s, typed,
            random.random() < 0.1,
        )  # fmt: skip


@dataclass
class Driver:
    """An attempt's process: it beats and works while it is not stopped."""

    attempt: Attempt | None = None
    done_s: float = 0.0
    state: Literal["queued", "running", "crashed", "over"] = "queued"
    process: "subprocess.Popen[bytes] | None" = None


@dataclass
class World:
    """One run and its time; whoever sleeps lets everything else happen meanwhile."""

    schedule: Schedule
    objects: dict[str, bytes]
    time: float = 0.0
    drivers: list[Driver] = field(default_factory=list)
    outcomes: list[tuple[Outcome, bool]] = field(default_factory=list)
    """How followers ended, and whether a driver was alive then."""
    refused: int = 0
    acted: int = 0
    exporters_lost: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    _by_driver: bool = False
    _looking: bool = False

    def __post_init__(self) -> None:
        run_id = next(iter(self.objects)).split("/")[1]
        self.run = Run(MemoryStore(self.objects, self._use_store), run_id)
        self.watch = StoreWatch(self.run.store, 30.0, lambda: self.time)

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._events, (time, next(self._order), event))

    def pass_until(self, time: float) -> None:
        """Let everything happen until then."""
        while self._events and self._events[0][0] <= time:
            at, _, event = heapq.heappop(self._events)
            self.time = max(self.time, at)
            event()
        self.time = max(self.time, time)

    def sleep(self, seconds: float) -> None:
        """As a command sleeps, which may itself be stopped."""
        self.pass_until(self.time + seconds)
        self.pass_until(self.paused_until("command line"))

    def paused_until(self, part: str) -> float:
        """When this part goes on; now, if it is not stopped."""
        ends = [e for b, e in self.schedule.pauses[part] if b <= self.time < e]
        return max(ends, default=self.time)

    def is_paused(self, part: str) -> bool:
        """Whether this part stands still."""
        return self.paused_until(part) > self.time

    def _use_store(self) -> None:
        if not self.is_paused("store"):
            return
        if not self._by_driver:
            self.sleep(STORE_PATIENCE_S)
        if self.is_paused("store"):
            raise StoreAwayError("the store does not answer")

    # The driver

    def begin_driver(self, after_s: float) -> None:
        """Queue a driver, which begins a while later."""
        driver = Driver()
        self.drivers.append(driver)
        self.at(self.time + after_s, lambda: self._live(driver, first=True))

    def _live(self, driver: Driver, first: bool = False) -> None:
        """A moment of the driver's life, and the next one."""
        if driver.state in ("crashed", "over"):
            return
        if self.is_paused("driver"):
            self.at(self.paused_until("driver"), lambda: self._live(driver, first))
            return
        self._by_driver = True
        try:
            if driver.attempt is None:
                if self.run.status().state in ENDED:  # as `execute` does
                    driver.state = "over"
                    return
                identity = self._identity(driver)
                driver.attempt = self.run.take_charge("a driver", identity, HEARTBEAT_S)
                driver.attempt.begin()
                driver.state = "running"
            elif not first:
                driver.done_s += HEARTBEAT_S
            if driver.done_s >= self.schedule.work_s:
                driver.attempt.close("finished")
                driver.state = "over"
                return
            driver.attempt.heartbeat()
            shifted = datetime.now(UTC) + timedelta(seconds=self.time + self.schedule.clock_ahead_s)
            driver.attempt._write(heartbeat_at=shifted.isoformat())
        except (LeaseLostError, KeyMissingError, InputError):  # taken over, or deleted
            driver.state = "over"
            return
        except StoreAwayError:
            pass
        finally:
            self._by_driver = False
        self.at(self.time + HEARTBEAT_S, lambda: self._live(driver))

    def _identity(self, driver: Driver) -> dict[str, Any] | None:
        if not self.schedule.is_here:
            return None
        if self.schedule.crashes_at is None:
            return this_process()
        driver.process = driver.process or subprocess.Popen(["sleep", "600"])
        found = find_process(driver.process.pid)
        assert found is not None
        return this_process() | {"pid": found.pid, "started": found.started}

    def crash(self) -> None:
        """Kill the first driver; a stopped one is killed as well."""
        driver = self.drivers[0]
        if driver.state in ("queued", "running"):
            driver.state = "crashed"
        self.end_process(driver)

    @staticmethod
    def end_process(driver: Driver) -> None:
        """End the real process that stands for a driver."""
        if driver.process is not None:
            driver.process.kill()
            driver.process.wait()

    @property
    def is_alive(self) -> bool:
        """Whether some driver works on the run, or will."""
        return any(driver.state in ("queued", "running") for driver in self.drivers)

    # What is typed and what watches

    def find_job(self, job_id: str) -> SubmittedJob | None:
        """As the dashboard answers. Raises: ClusterError while it stands still."""
        if self.is_paused("dashboard"):
            self.sleep(3.0)
            raise ClusterError("the dashboard does not answer")
        number = int(job_id.rpartition("-")[2])
        states = {"queued": "PENDING", "running": "RUNNING", "over": "SUCCEEDED"}
        return SubmittedJob(job_id, states.get(self.drivers[number - 1].state, "FAILED"), "", None)

    def evidence(self, run: Run, status: Status) -> Evidence:
        """What a command learns: in this machine's processes, else from the dashboard."""
        here = evidence_here(run, status)
        if here.dead or here.alive:
            return here
        job_id = str((status.cluster or {}).get("job_id"))
        try:
            return job_evidence(status, job_id, self.find_job(job_id), None)
        except ClusterError as error:
            return Evidence(doubt=str(error))

    def submit(self, after_s: float) -> None:
        """Hand the run to its next job."""
        reopen(self.run, {"job_id": f"job-{len(self.drivers) + 1}"})
        self.begin_driver(after_s)

    def follow(self) -> None:
        """Follow the run as the command does."""
        cluster = _Dashboard(self)
        job_id = str((self.run.status().cluster or {}).get("job_id"))
        follower = Follower(self.run, cluster, job_id, clock=lambda: self.time, sleep=self.sleep)  # type: ignore[arg-type]
        with suppress(LeaseLostError, StoreAwayError):
            outcome = follower.follow(lambda status, remark: None, poll_s=10.0)
            self.outcomes.append((outcome, self.is_alive))

    def look(self) -> None:
        """A round of the exporter, unless the last one still waits for the store."""
        if self._looking:
            return
        self._looking = True
        self.watch.read()
        self._looking = False
        lost = [s for s in self.watch.samples if s.labels.get("state") == "lost" and s.value]
        self.exporters_lost += bool(lost)

    def type(self, command: str) -> None:
        """Type a command that may not be undone."""
        try:
            Run.open(self.run.store, self.run.id)
            getattr(self, command)()
            self.acted += 1
        except InputError:
            self.refused += 1
        except (StoreAwayError, KeyMissingError):
            return

    def _examined(self) -> Examined:
        (found,) = examine([self.run], self.evidence, clock=lambda: self.time, sleep=self.sleep)
        return found

    def resume(self) -> None:
        """Go on with the run, if it is over."""
        if self.run.status().state == "finished":
            raise InputError("it has finished")
        refuse_live(self._examined())
        self.submit(5.0)

    def delete(self) -> None:
        """Delete the run, if it is over."""
        found = self._examined()
        refuse_live(found)
        if found.status.state != "finished":
            delete_run(self.run, found)

    def prune(self) -> None:
        """Delete it together with all that is over."""
        if self.run.status().state in ENDED:
            return
        plan = plan_prune(self.run.store, timedelta(0), 0, lambda runs: [self._examined()])
        if not plan.runs:
            raise InputError("nothing to prune")
        execute_plan(plan)


@dataclass(frozen=True)
class _Dashboard:
    """The cluster as a follower has it."""

    world: World

    def jobs(self, patience_s: float) -> "_Dashboard":
        """Its Jobs API."""
        return self

    def find(self, job_id: str) -> SubmittedJob | None:
        return self.world.find_job(job_id)

    def why_pending(self, job_id: str) -> str:
        return "waiting for its turn"


END_S = 7200.0


def simulate(
    schedule: Schedule, objects: Mapping[str, bytes], follow: Callable[[World], None] = World.follow
) -> World:
    """Let a schedule happen to a recorded run, from its submission until all is quiet."""
    world = World(schedule, dict(objects))
    world.submit(schedule.queued_s)
    if schedule.crashes_at is not None:
        world.at(schedule.crashes_at, world.crash)
    for time, command in schedule.commands:
        world.at(time, lambda command=command: world.type(command))  # type: ignore[misc]
    for time in range(0, 3000 if schedule.is_exported else 0, 30):
        world.at(float(time), world.look)
    world.at(1.0, lambda: follow(world))
    world.pass_until(END_S)
    for driver in world.drivers:
        world.end_process(driver)
    return world
