"""Finds, starts and ends our own Ray node on this machine; other people's nodes are left alone.

Ray gives its parts fixed times: 15 s for the agents' port files, 30 s for the raylet and the GCS.
On a busy machine that is too little; the logs of a node that does not start are kept.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from cifarray.backends.environment import remove_credentials
from cifarray.backends.local import processes
from cifarray.backends.local import state as node_state
from cifarray.backends.local.state import LOG_FILE, Node
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.errors import ClusterError
from cifarray.proxies import loopback_exceptions
from cifarray.runs.failures.causes import find_cause
from cifarray.spec.quantity import written_bytes
from cifarray.timers import Deadline
from cifarray.user_folders import state_folder

START_TIMEOUT_S = 180.0
AGAIN_LEAST_S = 60.0
"""A second attempt requires at least this much of that time."""
END_GRACE_S = 15.0
LONGEST_TEMP_DIR = 38
"""Bytes; Ray adds up to 68 for its sockets, whose paths end at 107."""
RAYS_FOLDER = "r"
"""Inside the temporary folder, which stays private: Ray opens its own to everyone."""
SHARED_MEMORY = Path("/dev/shm")
OBJECT_STORE_MOST = 1 << 30
OBJECT_STORE_LEAST = 100 << 20
OBJECT_STORE_PART = 0.3
RUN_SLOT = "cifarray_run"
"""A resource of our node: as many runs execute at a time as it has; others wait as pending."""
QUEUE_TIMEOUT_S = 30 * 24 * 3600
PORT_OPTIONS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
    "--node-manager-port",
    "--object-manager-port",
    "--runtime-env-agent-port",
)
PORT_VARIABLES = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")
FOREIGN_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_NAMESPACE",
    "RAY_TMPDIR",
)
"""Set by a shell that uses another cluster; our node must not inherit them."""
T = TypeVar("T")
START_HOOK = "cifarray.backends.local.node.tell_raylet_its_agents_port"
KEPT_FOLDER = "node-start-logs"
KEPT_BYTES = 1 << 20
"""Of the end of each log."""
KEPT_LOGS = ("raylet.*", "gcs_server.*", "dashboard.*", "dashboard_agent.*", "runtime_env_agent.*")
TELLING_LOGS = ("raylet.err", "gcs_server.err", LOG_FILE)
"""The logs in which the cause is looked up, in this order."""
CONNECTING_S = "60"
"""Clients that connect to the node later wait no longer than this for a node that is gone."""
BUSY_LOAD = 3.0
"""Load per core above which a start is slow."""
FIRST_PORT, LAST_PORT = 20000, 32000
"""Above Ray's own worker ports (10002 to 19999), below Linux's outgoing ones (32768 on)."""
PORT_TRIES = 1000


def client_environment(node: Node) -> dict[str, str]:
    """What `ray.init()` of another process on this machine needs to reach the node."""
    return {"RAY_ADDRESS": node.address, **common_environment()}


def api_of(node: Node, patience_s: float = 30.0) -> RayJobs:
    """The Jobs API of our node."""
    return RayJobs(node.dashboard, node_state.read_token(), patience_s)


def find_node() -> Node | None:
    """Our node, if it is alive and accepts our token; its record alone proves nothing."""
    node = node_state.read_node()
    return node if node and node_is_alive(node) and _answers(node) else None


def ensure_node(say: Callable[[str], None]) -> Node:
    """Our node, started if there is none; of several callers at once one starts it.

    Raises: ClusterError.
    """
    found = find_node()
    if found is None:
        with node_state.locked(
            lambda: say("waiting for another cifarray process that is starting a Ray node")
        ):
            found = _recorded_node() or _start(say)
    _check_version(found)
    return found


def end_node() -> Node | None:
    """End our node with all its processes; None if there was none.

    Raises: ClusterError if one of them survives.
    """
    with node_state.locked(lambda: None):
        node = node_state.read_node()
        if node is not None:
            _end(node)
        return node


def node_is_alive(node: Node) -> bool:
    """Whether the node's leading process runs, whether or not it answers."""
    return node.boot_id == processes.boot_id() and processes.is_alive(node.leader)


def has_ended(dashboard: str) -> bool:
    """Whether our node with this dashboard has certainly ended with all its processes.

    A node is forgotten, and another one started, only after that.
    """
    node = node_state.read_node()
    if node is None:
        return not (state_folder() / node_state.NODE_FILE).exists()
    if node.dashboard != dashboard or node.boot_id != processes.boot_id():
        return True
    return not processes.family(node.leader, node.temp_dir)


def _answers(node: Node) -> bool:
    try:
        return bool(api_of(node, patience_s=3.0).version())
    except ClusterError:
        return False


def _recorded_node() -> Node | None:
    """The recorded node, once it has started; what a dead node left is removed."""
    node = node_state.read_node()
    if node is None:
        return None
    if node_is_alive(node):
        try:
            _wait_until_it_answers(node, Deadline(START_TIMEOUT_S))
            return node
        except ClusterError as error:
            if node_is_alive(node):  # it is busy or suspended, and may be running jobs
                raise ClusterError(f"{error}; `cifarray cluster down` ends it") from error
    _end(node)
    return None


def _start(say: Callable[[str], None]) -> Node:
    say("starting a Ray node on this machine ...")
    if problem := too_little_shared_memory(free_shared_memory()):
        say(problem)
    deadline = Deadline(START_TIMEOUT_S)
    return start_twice(lambda: _start_once(deadline), lambda: deadline.allows(AGAIN_LEAST_S), say)


def _start_once(deadline: Deadline) -> Node:
    temp_dir = _new_temp_dir()
    node_state.write_token()
    ports = dict(zip((*PORT_OPTIONS, *PORT_VARIABLES), free_ports(11), strict=True))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    for option in PORT_OPTIONS:
        command += [option, str(ports[option])]
    command += [
        "--min-worker-port",
        "0",
        "--max-worker-port",
        "0",
    ]  # the operating system chooses it
    command += ["--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
    command += ["--resources", json.dumps({RUN_SLOT: 1})]
    command += ["--temp-dir", str(temp_dir / RAYS_FOLDER), "--disable-usage-stats"]
    command += ["--object-store-memory", str(_object_store_bytes())]
    environment = _node_environment() | {name: str(ports[name]) for name in PORT_VARIABLES}
    with _private_log().open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=temp_dir,
            env=environment,
            start_new_session=True,  # so that Ctrl-C here does not reach it
        )
    process = processes.find_process(child.pid)
    node = Node(
        address=f"127.0.0.1:{ports['--port']}",
        dashboard=f"http://127.0.0.1:{ports['--dashboard-port']}",
        pid=child.pid,
        started=process.started if process else 0,
        boot_id=processes.boot_id(),
        temp_dir=str(temp_dir),
    )
    node_state.record_node(node)
    try:
        _wait_until_it_answers(node, deadline)
    except BaseException:
        _end(node)
        raise
    return node


def _wait_until_it_answers(node: Node, deadline: Deadline) -> None:
    logs = Path(node.temp_dir) / RAYS_FOLDER / "session_latest" / "logs"
    for _ in deadline.looks(0.2):
        if _is_ready(node):
            return
        if not processes.is_alive(node.leader):
            raise not_started("the Ray node ended during its start", logs)
    raise not_started(f"the Ray node did not answer within {START_TIMEOUT_S:.0f} s", logs)


def _is_ready(node: Node) -> bool:
    """Whether it answers and reports that it has started: only then does it take jobs."""
    started = (Path(node.temp_dir) / RAYS_FOLDER / "ray_current_cluster").exists()
    return started and _answers(node)


def _end(node: Node) -> None:
    """End the node's remaining processes and remove its files."""
    if node.boot_id == processes.boot_id():
        survivors = processes.end(node.leader, node.temp_dir, END_GRACE_S)
        if survivors:
            pids = ", ".join(str(process.pid) for process in survivors)
            raise ClusterError(f"processes of the Ray node did not end: {pids}")
    node_state.forget_node()
    remove_credentials()
    if Path(node.temp_dir).name.startswith(_prefix()):
        shutil.rmtree(node.temp_dir, ignore_errors=True)


def _check_version(node: Node) -> None:
    ours = metadata.version("ray")
    theirs = api_of(node).version().get("ray_version")
    if theirs != ours:
        raise ClusterError(
            f"the Ray node of this machine runs Ray {theirs}, this Python has {ours}; "
            "end it with `cifarray cluster down` and try again"
        )


def _prefix() -> str:
    return f"cifarray-{os.getuid()}-"


def _new_temp_dir() -> Path:
    for parent in ("/tmp", tempfile.gettempdir()):
        try:
            folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))
        except OSError:
            continue
        if len(str(folder).encode()) <= LONGEST_TEMP_DIR:
            return folder
        folder.rmdir()
    raise ClusterError(
        "no folder for the Ray node: it requires a writable /tmp, or a short path in TMPDIR"
    )


def _private_log() -> Path:
    path = state_folder() / node_state.LOG_FILE
    node_state.write_private(path, "")
    return path


def free_shared_memory() -> int:
    """Bytes that are free in shared memory; 0 if there is none."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0


def too_little_shared_memory(free: int) -> str | None:
    """A warning if so little is free that Ray keeps its objects elsewhere."""
    if free >= OBJECT_STORE_LEAST:
        return None
    return (
        f"only {written_bytes(free)} are free in {SHARED_MEMORY}: Ray keeps its objects in its "
        "temporary folder instead, which is slower; `docker run --shm-size 2g` gives more"
    )


def _object_store_bytes() -> int:
    """Part of the free shared memory."""
    part = int(free_shared_memory() * OBJECT_STORE_PART)
    return max(OBJECT_STORE_LEAST, min(OBJECT_STORE_MOST, part))


def _node_environment() -> dict[str, str]:
    """This shell's, without its keys and without another cluster's address.

    Each job brings its own credentials, which those of the shell that started the node must not
    override.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN_VARIABLES and not name.startswith("AWS_")
    }
    ours = {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_JOB_START_TIMEOUT_SECONDS": str(QUEUE_TIMEOUT_S),
    }
    timeouts = patience(START_TIMEOUT_S)
    return kept | loopback_exceptions(kept) | common_environment() | timeouts | ours


def common_environment() -> dict[str, str]:
    """Settings that the node and its clients must share."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(node_state.token_path()),
        # Makes Ray listen on loopback, not on the machine's address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


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
    return f"load {load:.1f} on {cores} cores" if load > BUSY_LOAD * cores else ""


def start_twice(
    start: Callable[[], T], has_time: Callable[[], bool], say: Callable[[str], None]
) -> T:
    """The result of `start`, retried once if the first attempt fails early enough.

    Raises: ClusterError.
    """
    if busy := busy_machine():
        say(f"the machine is busy ({busy}): the node may take minutes to start")
    try:
        return start()
    except ClusterError as error:
        if not has_time():
            raise
        say(f"{error}; trying again ...")
    return start()


def not_started(what: str, logs: Path) -> ClusterError:
    """The error for a node that did not start: its cause, the machine's load, where its logs are.

    `logs` is Ray's folder of them, which is removed with the node.
    """
    kept = keep_logs(logs)
    busy = busy_machine()
    because = f": {cause}" if (cause := _cause(kept)) else ""
    hint = f"; the machine is busy ({busy}): try again when it is less busy" if busy else ""
    return ClusterError(f"{what}{because}{hint}; its logs are in {kept}")


def keep_logs(logs: Path) -> Path:
    """Copy the ends of a node's logs next to its state, replacing those of an earlier node."""
    kept = state_folder() / KEPT_FOLDER
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(mode=0o700)
    for path in (state_folder() / LOG_FILE, *(p for name in KEPT_LOGS for p in logs.glob(name))):
        try:
            text = path.read_bytes()[-KEPT_BYTES:]
        except OSError:
            continue
        if text:
            (kept / path.name).write_bytes(text)
    return kept


def _cause(kept: Path) -> str:
    for name in TELLING_LOGS:
        try:
            text = (kept / name).read_text("utf-8", "replace")
        except OSError:
            continue
        if text.strip() and (name == LOG_FILE or "Check failed" in text):
            return find_cause(text).sentence
    return ""


def free_ports(count: int) -> list[int]:
    """This many different ports that nobody listens on. Raises: ClusterError."""
    found: list[int] = []
    for port in random.sample(range(FIRST_PORT, LAST_PORT), PORT_TRIES):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(
        f"found only {len(found)} free ports of {count} from {FIRST_PORT} to {LAST_PORT}"
    )


def is_free(port: int) -> bool:
    """Whether one could listen on the port, on loopback and on every interface."""
    for host in ("127.0.0.1", ""):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
