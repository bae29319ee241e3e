"""What the driver of an attempt that failed keeps of it: logs, Ray's events, the machine."""

import os
import platform
import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import ray

from cifarray.driver.log import Log
from cifarray.errors import StoreError
from cifarray.runs import Attempt, Run
from cifarray.runs.failures.causes import failed_worker, find_cause
from cifarray.runs.post_mortem import (
    MOST_LOGS,
    cause_as_dict,
    failure_records,
    last_lines,
    write_post_mortem,
)
from cifarray.runs.status import now

T = TypeVar("T")

RAY_PATIENCE_S = 5
LONGEST_TAIL = 1 << 17
"""Bytes that are read of the end of a log."""
MEMORY = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Shmem")


def keep_post_mortem(run: Run, attempt: Attempt, error: BaseException, log: Log) -> None:
    """Store everything that helps to see why an attempt failed; unavailable parts are left out.

    `log` is the driver's own. It raises no error itself, which would hide the first one.
    """
    try:
        write_post_mortem(run.store, attempt.prefix, _found(run, attempt, error, log))
    except StoreError as failed:
        print(f"warning: the post-mortem could not be stored: {failed}", flush=True)


def _found(run: Run, attempt: Attempt, error: BaseException, log: Log) -> dict[str, Any]:
    sys.stdout.flush()
    sys.stderr.flush()
    log.catch_up()
    spec, no_logs, no_events = _if_available(run.spec, None), dict[str, list[str]](), list[str]()
    return {
        "at": now(),
        "attempt": attempt.number,
        "cause": cause_as_dict(find_cause(error)),
        "worker": failed_worker(error),
        "failures": failure_records(run.store, attempt.prefix),
        "driver": {"host": socket.gethostname(), "pid": os.getpid(), "lines": _tail(log.path)},
        "workers": _if_available(_worker_logs, no_logs),
        "ray_events": _if_available(_ray_events, no_events),
        "machine": machine(),
        "versions": {**(spec.versions if spec else {}), "system": platform.platform()},
        "job": spec.model_dump(mode="json") if spec else None,
    }


def machine() -> dict[str, Any]:
    """This machine's name, load and memory."""
    memory: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name in MEMORY:
                memory[name] = int(rest.split()[0]) << 10
    return {
        "host": socket.gethostname(),
        "load": list(os.getloadavg()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "container_limit_bytes": _container_limit(),
    }


def _container_limit() -> int | None:
    with suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    return None


def _worker_logs() -> dict[str, list[str]]:
    """The ends of the logs of this job's workers, as far as they are on this node."""
    if not (folder := _ray_logs()):
        return {}
    job = ray.get_runtime_context().get_job_id()
    ours = re.compile(rf"worker-[0-9a-f]+-{job}-\d+\.(?:err|out)")
    found = [path for path in folder.iterdir() if ours.fullmatch(path.name)]
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    lines = {path.name: _tail(path, 40) for path in newest}
    return dict([(name, tail) for name, tail in lines.items() if tail][:MOST_LOGS])


def _ray_events() -> list[str]:
    """What Ray's raylet and GCS recorded as events, and why actors of this job have died."""
    events: list[str] = []
    if not (folder := _ray_logs()):
        return events
    for path in sorted((folder / "events").glob("event_*.log")):
        events += _tail(path, 10)
    return events + _dead_actors()


def _dead_actors() -> list[str]:
    from ray.util.state import list_actors

    job = ray.get_runtime_context().get_job_id()
    dead = list_actors(
        filters=[("state", "=", "DEAD"), ("job_id", "=", job)],
        limit=50,
        timeout=RAY_PATIENCE_S,
        detail=True,
        raise_on_missing_output=False,
    )
    return [
        " ".join(f"actor {actor.class_name}, pid {actor.pid}: {actor.death_cause}".split())[:1000]
        for actor in dead
        if "INTENDED" not in str(actor.death_cause)
    ]


def _ray_logs() -> Path | None:
    """The folder of the logs of the Ray node that this driver is on."""
    node: Any = ray._private.worker._global_node  # None if this process has joined none
    return Path(node.get_logs_dir_path()) if node is not None else None


def _tail(path: Path, count: int | None = None) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LONGEST_TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return last_lines(text) if count is None else last_lines(text, count)


def _if_available(get: Callable[[], T], otherwise: T) -> T:
    """A part of the post-mortem; the cluster may be gone, and the store away."""
    try:
        return get()
    except Exception as error:  # Ray's clients raise what their libraries raise
        print(f"warning: a part of the post-mortem is missing: {find_cause(error)}", flush=True)
        return otherwise
