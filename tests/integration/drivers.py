"""Drivers of a run in a bucket, as the Jobs API begins them, before a proxy that disturbs them."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from cifarray.backends.environment import JOB_CONFIG, driver_command, job_environment
from cifarray.backends.local import processes
from cifarray.backends.local.node import client_environment
from cifarray.backends.local.state import Node
from cifarray.backends.submit import create, plan
from cifarray.data.ingest import prepare
from cifarray.runs import Run
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from tests.holding_proxy import HoldingProxy, holding_proxy
from tests.s3 import S3Server

PROFILE = Profile(name="small", kind="local", workers=2, cpus_per_worker=0.25)
"""Both drivers' workers, and their reading, find room on a node of two CPUs."""
TITLES = ("ray::RayTrainWorker", "ray::TrainController")
"""Of Ray's processes, those that write to the store for a driver."""


@dataclass
class Drivers:
    """One run in a bucket and the drivers that were begun for it, the first through a proxy."""

    run: Run
    node: Node
    proxy: HoldingProxy
    stack: ExitStack = field(default_factory=ExitStack)

    def begin(self, endpoint: str | None) -> "subprocess.Popen[str]":
        """A driver as the Jobs API begins it, which reaches the store at this address."""
        environment = job_environment(PROFILE, self.run.store, here=True)
        config = {"runtime_env": {"env_vars": environment}, "metadata": {"run_id": self.run.id}}
        spec = self.run.store.spec.model_copy(update={"endpoint": endpoint})
        driver = self.stack.enter_context(
            subprocess.Popen(
                ["sh", "-c", driver_command(self.run.id, spec, here=True)],
                env={
                    **os.environ,
                    **environment,
                    **client_environment(self.node),
                    JOB_CONFIG: json.dumps(config),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        self.stack.callback(driver.kill)
        return driver

    def writers(self, driver: "subprocess.Popen[str]") -> list[int]:
        """Process ids of the only driver and of what writes for it."""
        members = processes.family(self.node.leader, self.node.temp_dir)
        titles = {member.pid: processes.command_line(member.pid) for member in members}
        return [driver.pid, *(pid for pid, title in titles.items() if title.startswith(TITLES))]

    def signal(self, pids: list[int], number: signal.Signals) -> None:
        """Stop the processes, or let them go on."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def drivers_of(job: Job, s3: S3Server, node: Node) -> Iterator[Drivers]:
    """A job recorded as a run in a bucket, on which nobody works yet."""
    store = s3.new_store()
    manifest, _ = prepare(store, "digits")
    run = create(plan(job, PROFILE, name="taken-over"), store, manifest)
    with holding_proxy(s3.endpoint) as proxy, ExitStack() as stack:
        yield Drivers(run, node, proxy, stack)
