"""What cifarray records about the Ray node that it started, readable by its user alone."""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cifarray.backends.local.processes import Process
from cifarray.spec.bounds import parse_json
from cifarray.user_folders import state_folder

NODE_FILE = "node.json"
TOKEN_FILE = "ray-token"
LOG_FILE = "node.log"
LOCK_FILE = "lock"


@dataclass(frozen=True)
class Node:
    """A Ray node: its addresses and, if it is ours, its leading process."""

    address: str
    """Of its GCS, host:port."""
    dashboard: str
    """http://host:port, of the Jobs API too."""
    pid: int
    started: int
    boot_id: str
    temp_dir: str

    @property
    def leader(self) -> Process:
        """The process that `ray start --block` runs in."""
        return Process(self.pid, self.started)


def write_private(path: Path, text: str) -> None:
    """Replace a file at once with one that only its owner reads."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    os.replace(draft, path)


def append_private(path: Path, text: str) -> None:
    """Add to a file that only its owner reads, in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def read_node() -> Node | None:
    """The node that was recorded last; None if there is none or the record is damaged."""
    try:
        return Node(**parse_json((state_folder() / NODE_FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def record_node(node: Node) -> None:
    """Remember the node."""
    write_private(state_folder() / NODE_FILE, json.dumps(asdict(node), indent=2) + "\n")


def forget_node() -> None:
    """Remove the record and the token."""
    for name in (NODE_FILE, TOKEN_FILE):
        (state_folder() / name).unlink(missing_ok=True)


def token_path() -> Path:
    """The file with our node's token."""
    return state_folder() / TOKEN_FILE


def read_token() -> str | None:
    """The token of our node; None if there is none."""
    try:
        return token_path().read_text("utf-8").strip() or None
    except OSError:
        return None


def write_token() -> None:
    """Make a new token: who reads the file may run anything on the node."""
    write_private(token_path(), secrets.token_hex(32))


@contextmanager
def locked(on_wait: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time start or end the node; `on_wait` is called if another does."""
    with (state_folder() / LOCK_FILE).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
