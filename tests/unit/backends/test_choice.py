"""Which cluster a profile or a run's record names, and with which token it is asked."""

import subprocess
from pathlib import Path

import pytest

from cifarray.backends.choice import (
    Cluster,
    find_own,
    given_cluster,
    recorded_cluster,
    standard_token,
)
from cifarray.backends.local.processes import boot_id, find_process
from cifarray.backends.local.state import Node, record_node
from cifarray.errors import JobError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.store import Store
from tests.unit.runs.conftest import run_spec

GIVEN = Profile(
    name="mine", kind="local", address="10.0.0.5:6379", dashboard="http://10.0.0.5:8265"
)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_profile_without_an_address_gives_none() -> None:
    assert given_cluster(Profile(name="local", kind="local")) is None


def test_a_profile_may_name_a_node_of_its_user() -> None:
    cluster = given_cluster(GIVEN)
    assert cluster == Cluster("mine", "10.0.0.5:6379", "http://10.0.0.5:8265", own=False)
    assert not cluster.is_here
    assert not cluster.is_gone()


@pytest.mark.parametrize(
    "profile",
    [
        GIVEN.model_copy(update={"dashboard": None}),
        GIVEN.model_copy(update={"address": None}),
        GIVEN.model_copy(update={"dashboard": "10.0.0.5:8265"}),
        GIVEN.model_copy(update={"dashboard": "file:///etc/passwd"}),
    ],
)
def test_half_an_address_is_refused(profile: Profile) -> None:
    with pytest.raises(JobError, match="dashboard"):
        given_cluster(profile)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a"))


def test_a_record_brings_the_users_node_back_without_a_token_in_it(run: Run) -> None:
    cluster = given_cluster(GIVEN)
    assert cluster is not None
    record = cluster.record("a-1")
    assert record["job_id"] == "a-1"
    assert "token" not in record
    assert recorded_cluster(run, record, GIVEN) == cluster


def test_a_record_of_our_node_that_has_ended_gives_none(run: Run) -> None:
    own = Cluster("local", "127.0.0.1:20001", "http://127.0.0.1:20002", own=True)
    assert recorded_cluster(run, own.record("a-1")) is None
    assert own.is_gone()
    assert find_own("local") is None


def test_our_node_is_not_gone_while_its_processes_live_though_it_does_not_answer(
    run: Run,
) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as leader:
        found = find_process(leader.pid)
        assert found is not None
        address, dashboard = "127.0.0.1:20001", "http://127.0.0.1:9"
        node = Node(address, dashboard, leader.pid, found.started, boot_id(), "/tmp/none")
        record_node(node)
        own = find_own("local")
        assert own is not None and own.dashboard == dashboard
        assert not own.is_gone() and recorded_cluster(run, own.record("a-1")) is not None
        other = Cluster("local", address, "http://127.0.0.1:10", own=True)
        assert other.is_gone(), "another node took its place"
        leader.kill()
    assert own.is_gone() and find_own("local") is None


@pytest.mark.parametrize("record", [None, {}, {"dashboard": 3}, {"job_id": "a-1"}])
def test_a_record_without_a_dashboard_gives_none(
    run: Run, record: dict[str, object] | None
) -> None:
    assert recorded_cluster(run, record) is None


def test_the_token_comes_from_the_environment_or_the_file_that_it_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert standard_token() is None
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert standard_token() == "from-file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-variable")
    assert standard_token() == "from-variable"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert standard_token() is None


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(Cluster("p", "a:1", "http://a:2", False, "secret"))
