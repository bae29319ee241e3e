"""Clusters for tests: a node of ours and a user's, at addresses where nobody need answer."""

from cifarray.backends.local.backend import LocalBackend
from cifarray.backends.local.state import Node
from cifarray.backends.ray_jobs.backend import RayJobsBackend
from cifarray.spec.profile import Profile

LOCAL = Profile(name="local", kind="local")


def own_node(dashboard: str, address: str = "127.0.0.1:1") -> LocalBackend:
    """A node that cifarray is said to have started."""
    return LocalBackend(LOCAL, Node(address, dashboard, 0, 0, "", ""))


def given_node(dashboard: str, address: str = "127.0.0.1:1") -> RayJobsBackend:
    """A node that a user's profile names."""
    profile = Profile(name="mine", kind="local", address=address, dashboard=dashboard)
    return RayJobsBackend(profile)
