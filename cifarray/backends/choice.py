"""The cluster that a profile names or a run recorded, whether the node is ours or the user's."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cifarray.backends.kubernetes.backend import (
    KubernetesCluster,
    open_cluster,
    recorded_kubernetes,
)
from cifarray.backends.local import node as local_node
from cifarray.backends.local import state as node_state
from cifarray.backends.local.state import Node
from cifarray.backends.ray_jobs.client import PATIENCE_S, RayJobs
from cifarray.backends.trust import naming_profile, refuse_foreign_job
from cifarray.errors import JobError
from cifarray.proxies import is_loopback
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.user_folders import home_folder, state_folder


@dataclass(frozen=True)
class Cluster:
    """Where runs execute. `own` says that cifarray started its node, on this machine."""

    profile: str
    address: str
    dashboard: str
    own: bool
    token: str | None = None

    def __repr__(self) -> str:
        return f"Cluster({self.dashboard!r}, own={self.own})"

    def jobs(self, patience_s: float = PATIENCE_S) -> RayJobs:
        """Its Jobs API."""
        return RayJobs(self.dashboard, self.token, patience_s)

    def is_gone(self) -> bool:
        """Whether its node has certainly ended; of a user's node nothing is certain."""
        return self.own and local_node.has_ended(self.dashboard)

    @property
    def is_here(self) -> bool:
        """Whether its head runs on this machine, so that it reads our files."""
        return is_loopback(self.dashboard)

    def record(self, job_id: str | None) -> dict[str, Any]:
        """What a run's status says of it; no token."""
        return {
            "profile": self.profile,
            "address": self.address,
            "dashboard": self.dashboard,
            "job_id": job_id,
            "own": self.own,
            **(_this_place() if self.own else {}),
        }


def reach(profile: Profile, say: Callable[[str], None]) -> Cluster | KubernetesCluster:
    """The profile's cluster; a node of our own is started if there is none.

    Raises: JobError for half an address, ClusterError for a node that does not start.
    """
    if profile.kind == "kubernetes":
        return open_cluster(profile)
    given = given_cluster(profile)
    return given or _own_cluster(profile.name, local_node.ensure_node(say))


def given_cluster(profile: Profile) -> Cluster | None:
    """The node that the profile says its user started; None where cifarray starts its own."""
    if not profile.address and not profile.dashboard:
        return None
    if not (profile.address and profile.dashboard):
        raise JobError(
            f"cluster profile {profile.name} gives only one of address and dashboard; give both, "
            "as in address: 127.0.0.1:6379 and dashboard: http://127.0.0.1:8265"
        )
    if urlsplit(profile.dashboard).scheme not in ("http", "https"):
        raise JobError(
            f"cluster profile {profile.name}: dashboard {profile.dashboard} is no http://host:port"
        )
    return Cluster(profile.name, profile.address, profile.dashboard, False, standard_token())


def find_own(profile: str, dashboard: str | None = None) -> Cluster | None:
    """Our own node if it lives, and, where a dashboard is given, if it is that one.

    It may not answer at this moment: a busy machine, or a process of it that was stopped.
    """
    node = node_state.read_node()
    if node is None or dashboard not in (None, node.dashboard):
        return None
    return _own_cluster(profile, node) if local_node.lives(node) else None


def recorded_cluster(
    run: Run,
    record: Mapping[str, Any] | None,
    named: Profile | None = None,
    patience_s: float = PATIENCE_S,
) -> Cluster | KubernetesCluster | None:
    """The cluster that a run's status names; None if it names none or our node has ended.

    `named` is the profile of --cluster. Raises: UntrustedError for a cluster or a job that the
    user has not named, ClusterError for a Kubernetes cluster that no kubeconfig names.
    """
    if record is None:
        return None
    refuse_foreign_job(run.id, record)
    dashboard = record.get("dashboard")
    if record.get("kind") == "kubernetes":
        own = naming_profile(run, record, named)
        by_command = named is not None and named.kind == own.kind and named.name == own.name
        return recorded_kubernetes(record, own, by_command, patience_s)
    if not isinstance(dashboard, str):
        return None
    if record.get("own"):
        return find_own(str(record.get("profile")), dashboard)
    return given_cluster(naming_profile(run, record, named))


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


def is_from_here(record: Mapping[str, Any]) -> bool:
    """Whether a recorded node of ours was this machine's, so that we know whether it lives."""
    place = _this_place()
    return {name: record.get(name) for name in place} == place


def _this_place() -> dict[str, str]:
    return {"host": socket.gethostname(), "state_dir": str(state_folder())}


def _own_cluster(profile: str, node: Node) -> Cluster:
    return Cluster(profile, node.address, node.dashboard, True, node_state.read_token())
