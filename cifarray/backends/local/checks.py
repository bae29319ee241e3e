"""Checks of this machine: its CPUs, GPUs, ports and disks, and the Ray node that runs use."""

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from cifarray import __version__
from cifarray.backends.base import Check, Result, failed, passed, skipped
from cifarray.backends.local.backend import LocalBackend
from cifarray.backends.local.node import (
    SHARED_MEMORY,
    free_ports,
    free_shared_memory,
    too_little_shared_memory,
)
from cifarray.backends.ray_jobs.backend import RayJobsBackend
from cifarray.errors import ClusterError
from cifarray.spec.profile import Profile
from cifarray.spec.quantity import written_bytes
from cifarray.store import Store
from cifarray.user_folders import cache_folder, state_folder

SHOWN = ("ray", "torch", "pyarrow")
NODE_PATIENCE_S = 5.0
PORTS = 11
LEAST_FREE_BYTES = 2 << 30
MOST_FULL = 0.95
"""Ray stops scheduling work if the disk of its temporary folder is fuller than this."""


@dataclass(frozen=True)
class LocalSite:
    """This machine: the node that runs use on it, and the store that commands use."""

    backend: RayJobsBackend
    store: Store

    @property
    def profile(self) -> Profile:
        """The profile, which says what workers get."""
        return self.backend.profile


def versions(site: LocalSite) -> Result:
    """The required packages are installed."""
    try:
        found = ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN)
    except metadata.PackageNotFoundError as error:
        return failed(f"the package {error.name} is not installed", "reinstall cifarray")
    return passed(f"cifarray {__version__}, Python {platform.python_version()}, {found}")


def processors(site: LocalSite) -> Result:
    """There are enough CPUs for the workers and for reading."""
    profile, cpus = site.profile, len(os.sched_getaffinity(0))
    wanted = profile.workers * profile.cpus_per_worker
    if cpus - wanted < 1:
        return failed(
            f"{cpus}, and {profile.workers} workers of {profile.cpus_per_worker:g} each leave "
            "none for Ray Data, whose reads would wait forever",
            f"lower workers or cpus_per_worker in profile {profile.name}",
        )
    return passed(f"{cpus}, of which workers use {wanted:g}")


def gpus(site: LocalSite) -> Result:
    """There are enough usable GPUs for the workers."""
    profile = site.profile
    wanted = profile.workers * profile.gpus_per_worker
    if not wanted:
        return skipped(f"workers of profile {profile.name} request no GPU")
    import torch

    found = torch.cuda.device_count()
    if found < wanted:
        return failed(
            f"{found} that torch {torch.__version__} can use, but workers request {wanted:g}",
            "check `nvidia-smi`, or lower gpus_per_worker in the profile",
        )
    return passed(f"{found}, of which workers use {wanted:g}")


def ray_node(site: LocalSite) -> Result:
    """The profile's node, or our own, answers and has the Ray version of this Python."""
    own = site.backend.own
    found = LocalBackend.find(site.profile) if own else site.backend
    if found is None:
        return passed("not running; `submit` starts one automatically")
    ours = metadata.version("ray")
    there = found.jobs(NODE_PATIENCE_S).version().get("ray_version")
    if there != ours:
        return failed(
            f"the node at {found.dashboard} runs Ray {there}, this Python has {ours}",
            "`cifarray cluster down` ends it" if own else f"install ray=={there} here",
        )
    return passed(f"{found.dashboard}, Ray {there}")


def ports(site: LocalSite) -> Result:
    """There are free ports for our own node."""
    if not site.backend.own:
        return skipped(f"profile {site.profile.name} names a Ray node that you start yourself")
    try:
        found = free_ports(PORTS)
    except ClusterError as error:
        return failed(str(error), "end programs that listen on ports between 20000 and 32000")
    return passed(f"{len(found)} free ports for cifarray's Ray node")


def shared_memory(site: LocalSite) -> Result:
    """There is enough shared memory for a node's object store."""
    if not site.backend.own:
        return skipped(f"profile {site.profile.name} names a Ray node that you start yourself")
    free = free_shared_memory()
    return passed(
        too_little_shared_memory(free) or f"{written_bytes(free)} free in {SHARED_MEMORY}"
    )


def disk(site: LocalSite) -> Result:
    """There is enough disk space for Ray's temporary folder, the cache and a local store."""
    folders = [Path(tempfile.gettempdir()), cache_folder()]
    if "://" not in site.store.uri:
        folders.append(Path(site.store.uri))
    troubles, shown = [], []
    for folder in folders:
        usage = shutil.disk_usage(existing(folder))
        shown.append(f"{written_bytes(usage.free)} free for {folder}")
        if usage.free < LEAST_FREE_BYTES or usage.free < usage.total * (1 - MOST_FULL):
            troubles.append(f"only {written_bytes(usage.free)} free for {folder}")
    if troubles:
        return failed("; ".join(troubles), "free some space; Ray schedules no work on a full disk")
    return passed(", ".join(shown))


def state(site: LocalSite) -> Result:
    """The state folder, which records our node, is writable."""
    return passed(str(state_folder()))


def machine_checks(backend: RayJobsBackend, store: Store) -> list[Check]:
    """All checks, in order."""
    site = LocalSite(backend, store)
    return [
        Check("versions", partial(versions, site)),
        Check("CPUs", partial(processors, site)),
        Check("GPUs", partial(gpus, site)),
        Check("state folder", partial(state, site)),
        Check("Ray node", partial(ray_node, site), needs="state folder"),
        Check("ports", partial(ports, site)),
        Check("shared memory", partial(shared_memory, site)),
        Check("disk space", partial(disk, site)),
    ]


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
