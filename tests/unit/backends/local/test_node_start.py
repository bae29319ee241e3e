"""A Ray node that does not start: tried twice, its logs kept, and the cause and the load told."""

from pathlib import Path

import pytest

from cifarray.backends.local import node
from cifarray.backends.local.node import (
    busy_at,
    ensure_node,
    keep_logs,
    not_started,
    patience,
    start_twice,
)
from cifarray.backends.local.state import LOG_FILE, state_folder
from cifarray.errors import ClusterError

RAYLET = (
    "[2026-11-30 16:16:19,546 C 10406 10406] (raylet) node_manager.cc:3588:  Check failed: "
    "statussetor3588.has_value() Timed out waiting for file /tmp/node/session_1/"
    "dashboard_agent_listen_port_44c23243d56d36a8ba9c656ad2e83fc6293f30afcf8d86809073d827\n"
)


class Starts:
    """Starts that fail as often as they are told."""

    def __init__(self, failing: int) -> None:
        self.failing, self.tried = failing, 0

    def __call__(self) -> str:
        self.tried += 1
        if self.tried <= self.failing:
            raise ClusterError(f"start {self.tried} failed")
        return "the node"


def test_a_start_that_fails_is_tried_once_more() -> None:
    said: list[str] = []
    starts = Starts(failing=1)
    assert start_twice(starts, lambda: True, said.append) == "the node"
    assert said[-1] == "start 1 failed; trying again ..."


def test_it_is_tried_no_third_time_and_not_at_all_without_time() -> None:
    starts = Starts(failing=9)
    with pytest.raises(ClusterError, match="start 2 failed"):
        start_twice(starts, lambda: True, print)
    late = Starts(failing=1)
    with pytest.raises(ClusterError, match="start 1 failed"):
        start_twice(late, lambda: False, print)
    assert (starts.tried, late.tried) == (2, 1)


def test_the_raylets_own_cause_is_told_and_its_log_kept(tmp_path: Path) -> None:
    (tmp_path / "raylet.err").write_text(RAYLET)
    (tmp_path / "gcs_server.out").write_text("x" * (3 << 20))
    (state_folder() / LOG_FILE).write_text("Exception: The current node timed out during startup.")
    told = str(not_started("the Ray node ended during its start", tmp_path))
    kept = state_folder() / node.KEPT_FOLDER
    assert "too slow to write dashboard_agent_listen_port" in told
    assert told.endswith(f"its logs are in {kept}")
    assert (kept / "raylet.err").read_text() == RAYLET
    assert (kept / "gcs_server.out").stat().st_size == node.KEPT_BYTES
    assert kept.stat().st_mode & 0o077 == 0


def test_logs_of_an_earlier_start_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "raylet.out").write_text("old")
    keep_logs(tmp_path)
    (tmp_path / "raylet.out").unlink()
    assert not (keep_logs(tmp_path) / "raylet.out").exists()


def test_the_load_is_named_where_it_makes_a_start_slow() -> None:
    assert busy_at(24.13, cores=2) == "load 24.1 on 2 cores"
    assert busy_at(2.5, cores=2) == ""


def test_ray_takes_the_variables_that_give_it_time() -> None:
    """Ray says of an unknown variable nothing: so its own words for them are looked up."""
    import ray

    raylet = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    words = raylet.read_bytes()
    given = {name for name in patience(90.0) if name.startswith("RAY_") and name[4].islower()}
    python_own = {"RAY_gcs_server_port_wait_time_s"}
    assert given > python_own
    assert all(name[4:].encode() in words for name in given - python_own)


def test_a_node_that_cannot_start_is_tried_twice_and_says_where_its_log_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere = '{"type": "filesystem", "params": {"directory_path": "/proc/nowhere"}}'
    monkeypatch.setenv("RAY_object_spilling_config", nowhere)
    said: list[str] = []
    with pytest.raises(ClusterError, match="the Ray node ended during its start") as refused:
        ensure_node(said.append)
    kept = state_folder() / node.KEPT_FOLDER
    assert str(kept) in str(refused.value)
    assert sum("trying again" in line for line in said) == 1
    assert "Traceback" in (kept / LOG_FILE).read_text()
