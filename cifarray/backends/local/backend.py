"""This machine as a cluster: a Ray node that cifarray starts, with its own Jobs API."""

import socket
from collections.abc import Mapping
from typing import Any, ClassVar

from cifarray.backends.base import PATIENCE_S, Backend, CommandOutput, Reporter, Teardown
from cifarray.backends.local import node as nodes
from cifarray.backends.local.state import Node, read_node, read_token, token_path
from cifarray.backends.ray_jobs.backend import (
    LOOK_PATIENCE_S,
    RayJobsBackend,
    described,
    refuse_options,
    stop_jobs,
)
from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.user_folders import state_folder

NONE_RUNS = "no Ray node of cifarray runs on this machine"


class LocalBackend(RayJobsBackend):
    """The node that cifarray starts when a run needs one."""

    own: ClassVar[bool] = True

    def __init__(self, profile: Profile, node: Node | None = None) -> None:
        self.profile = profile
        self._node = node

    def __repr__(self) -> str:
        return f"LocalBackend({self._node.dashboard if self._node else None!r})"

    @staticmethod
    def find(profile: Profile, dashboard: str | None = None) -> "LocalBackend | None":
        """Our node, if it is alive and has this dashboard, where one is given.

        It may not answer at the moment: the machine is busy, or one of its processes is suspended.
        """
        node = read_node()
        if node is None or dashboard not in (None, node.dashboard) or not nodes.node_is_alive(node):
            return None
        return LocalBackend(profile, node)

    @property
    def node(self) -> Node:
        """The node, which has been started or found."""
        assert self._node is not None
        return self._node

    @property
    def address(self) -> str:
        return self.node.address

    @property
    def dashboard(self) -> str:
        return self.node.dashboard

    @property
    def certain(self) -> bool:
        """Only our node accepts our token."""
        return True

    @property
    def token(self) -> str | None:
        """Made for this node when it was started."""
        return read_token()

    def record(self, job_id: str | None) -> dict[str, Any]:
        return {**super().record(job_id), **_this_place()}

    @classmethod
    def may_be_asked(cls, record: Mapping[str, Any], before_acts: bool) -> bool:
        """This machine knows nothing about another machine's node."""
        return is_from_here(record)

    def recorded_as(
        self, record: Mapping[str, Any], explicit: bool, patience_s: float = PATIENCE_S
    ) -> Backend | None:
        """Never by its profile: our node is recognized by this machine's own record."""
        return None

    def start(self, reporter: Reporter) -> None:
        self._node = nodes.ensure_node(reporter.say)

    def enter(self, run: Run) -> dict[str, str]:
        """Open the run for a driver in this process. Raises: ClusterError if the node is busy."""
        if live := self.jobs().live_jobs():
            raise ClusterError(
                f"this machine's Ray node is busy with job {live[0].id}; wait until it ends, or "
                "use `cifarray submit`, which queues the run"
            )
        return super().enter(run) | nodes.common_environment()

    def up(self, overlay: str | None, force: bool, reporter: Reporter) -> CommandOutput:
        refuse_options(self.profile, {"--overlay": overlay, "--force-conflicts": force})
        self.start(reporter)
        return self._shown()

    def down(
        self, delete_store: bool | None, remove_finalizers: bool, reporter: Reporter
    ) -> Teardown:
        options = {"--delete-store": delete_store, "--remove-finalizers": remove_finalizers}
        refuse_options(self.profile, options)
        found = LocalBackend.find(self.profile)
        jobs = found.jobs(LOOK_PATIENCE_S) if found else None
        try:
            live = [job.id for job in jobs.live_jobs()] if jobs else []
            others = [f"program {name}" for name in jobs.live_drivers()] if jobs else []
        except ClusterError as error:  # it is busy or suspended, and may be running jobs
            reporter.warn(str(error))
            jobs, live, others = None, [], ["whatever runs on the Ray node, which does not answer"]
        at_work = ", ".join([*live, *others])

        def execute(delete_store: bool) -> CommandOutput:
            if jobs:
                stop_jobs(jobs, live, reporter)
            ended = nodes.end_node()
            data = {"ended": ended is not None, "stopped_jobs": live}
            return CommandOutput(
                data, [f"ended the Ray node at {ended.dashboard}" if ended else NONE_RUNS]
            )

        return Teardown(
            f"this stops {at_work}: continue?" if at_work else "",
            f"the Ray node is running {at_work}; add --yes to stop it",
            execute,
        )

    def status(self) -> CommandOutput:
        found = LocalBackend.find(self.profile)
        if found is None:
            return CommandOutput(None, [f"{NONE_RUNS}; `submit` starts one automatically"])
        return found._shown()

    def _shown(self) -> CommandOutput:
        return described(self, self.jobs(LOOK_PATIENCE_S), str(token_path()))

    def is_gone(self) -> bool:
        return nodes.has_ended(self.dashboard)

    def _resources(self) -> Mapping[str, float]:
        """It executes one run at a time: each takes all the machine's cores."""
        return {nodes.RUN_SLOT: 1.0}


def is_from_here(record: Mapping[str, Any]) -> bool:
    """Whether a recorded node of ours ran on this machine, so that we know whether it is alive."""
    place = _this_place()
    return {name: record.get(name) for name in place} == place


def _this_place() -> dict[str, str]:
    return {"host": socket.gethostname(), "state_dir": str(state_folder())}
