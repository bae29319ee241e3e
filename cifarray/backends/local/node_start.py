"""How a Ray node of our own gets time on a busy machine, and what is kept when it does not start.

Ray gives its parts fixed times: 15 s for the agents' port files, 30 s for the raylet and the GCS.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cifarray.backends.local.state import LOG_FILE
from cifarray.errors import ClusterError
from cifarray.runs.causes import find_cause
from cifarray.user_folders import state_folder

T = TypeVar("T")

START_HOOK = "cifarray.backends.local.node_start.tell_raylet_its_agents_port"
KEPT_FOLDER = "node-start-logs"
KEPT_BYTES = 1 << 20
"""Of the end of each log."""
KEPT = ("raylet.*", "gcs_server.*", "dashboard.*", "dashboard_agent.*", "runtime_env_agent.*")
TELLING = ("raylet.err", "gcs_server.err", LOG_FILE)
"""Which log is asked first for the cause."""
CONNECTING_S = "60"
"""Whatever connects to the node later waits no longer for one that has gone."""
BUSY = 3.0
"""A load of so many processes for each core makes a start slow."""


def patience(seconds: float) -> dict[str, str]:
    """The variables by which `ray start` and its processes wait this long for one another."""
    whole = str(round(seconds))
    return {
        "RAY_START_HOOK": START_HOOK,
        "RAY_raylet_start_wait_time_s": whole,
        "RAY_gcs_server_port_wait_time_s": whole,
        "RAY_gcs_rpc_server_connect_timeout_s": CONNECTING_S,
        "RAY_py_gcs_connect_timeout_s": CONNECTING_S,
        "RAY_agent_register_timeout_ms": str(round(seconds * 1000)),
    }


def tell_raylet_its_agents_port(ray_params: Any, head: bool) -> None:
    """What `ray start` calls before it starts the node (RAY_START_HOOK).

    Ray 2.60 does not hand the dashboard agent's chosen port on to the raylet, which therefore waits
    for the agent to write it, 15 s and no longer (github.com/ray-project/ray/issues/65983).
    """
    from ray._private import ray_constants, services

    start, port = services.start_ray_process, ray_params.dashboard_agent_listen_port
    if not port:
        return

    def with_port(command: list[str], process_type: str, *given: Any, **named: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = [*command, f"--dashboard_agent_listen_port={port}"]
        return start(command, process_type, *given, **named)

    services.start_ray_process = with_port


def busy_machine() -> str:
    """This machine's load where that makes a start slow; else empty."""
    return busy_at(os.getloadavg()[0], len(os.sched_getaffinity(0)))


def busy_at(load: float, cores: int) -> str:
    """`load 24.1 on 2 cores` where that is much; else empty."""
    return f"load {load:.1f} on {cores} cores" if load > BUSY * cores else ""


def start_twice(
    start: Callable[[], T], has_time: Callable[[], bool], say: Callable[[str], None]
) -> T:
    """What `start` gives, at its second try if the first one fails in time.

    Raises: ClusterError.
    """
    if busy := busy_machine():
        say(f"the machine is busy ({busy}): the node may need minutes")
    try:
        return start()
    except ClusterError as error:
        if not has_time():
            raise
        say(f"{error}; trying again ...")
    return start()


def not_started(what: str, logs: Path) -> ClusterError:
    """The error of a node that did not start: its cause, the machine's load, where its logs lie.

    `logs` is Ray's folder of them, which is removed with the node.
    """
    kept = keep_logs(logs)
    busy = busy_machine()
    because = f": {cause}" if (cause := _cause(kept)) else ""
    hint = f"; the machine is busy ({busy}): try again when it is less so" if busy else ""
    return ClusterError(f"{what}{because}{hint}; its logs are in {kept}")


def keep_logs(logs: Path) -> Path:
    """Copy the ends of a node's logs beside its state, in the place of an earlier node's."""
    kept = state_folder() / KEPT_FOLDER
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(mode=0o700)
    for path in (state_folder() / LOG_FILE, *(p for name in KEPT for p in logs.glob(name))):
        try:
            text = path.read_bytes()[-KEPT_BYTES:]
        except OSError:
            continue
        if text:
            (kept / path.name).write_bytes(text)
    return kept


def _cause(kept: Path) -> str:
    for name in TELLING:
        try:
            text = (kept / name).read_text("utf-8", "replace")
        except OSError:
            continue
        if text.strip() and (name == LOG_FILE or "Check failed" in text):
            return find_cause(text).sentence
    return ""
