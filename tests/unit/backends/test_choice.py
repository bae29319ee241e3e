"""Which cluster a profile or a run's record names, and with which token it is asked."""

import subprocess
from pathlib import Path

import pytest

from cifarray.backends.choice import backend_of
from cifarray.backends.local.backend import LocalBackend
from cifarray.backends.local.processes import boot_id, find_process
from cifarray.backends.local.state import Node, record_node
from cifarray.backends.ray_jobs.backend import RayJobsBackend, standard_token
from cifarray.backends.trust import recorded_backend
from cifarray.errors import JobError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.store import Store
from tests.unit.backends.clusters import LOCAL, given_node, own_node
from tests.unit.runs.conftest import run_spec

GIVEN = Profile(
    name="mine", kind="local", address="10.0.0.5:6379", dashboard="http://10.0.0.5:8265"
)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_profile_without_an_address_means_our_own_node() -> None:
    assert backend_of(LOCAL).own


def test_a_profile_may_name_a_node_of_its_user() -> None:
    cluster = backend_of(GIVEN)
    assert isinstance(cluster, RayJobsBackend) and not cluster.own
    assert (cluster.address, cluster.dashboard) == ("10.0.0.5:6379", "http://10.0.0.5:8265")
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
        backend_of(profile)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a"))


def test_a_record_brings_the_users_node_back_without_a_token_in_it(run: Run) -> None:
    cluster = backend_of(GIVEN)
    record = cluster.record("a-1")
    assert record["job_id"] == "a-1"
    assert "token" not in record
    found = recorded_backend(run, record, GIVEN)
    assert found is not None and found.profile == cluster.profile


def test_a_record_of_our_node_that_has_ended_gives_none(run: Run) -> None:
    own = own_node("http://127.0.0.1:20002", "127.0.0.1:20001")
    assert recorded_backend(run, own.record("a-1")) is None
    assert own.is_gone()
    assert LocalBackend.find(LOCAL) is None


def test_our_node_is_not_gone_while_its_processes_live_though_it_does_not_answer(
    run: Run,
) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as leader:
        found = find_process(leader.pid)
        assert found is not None
        address, dashboard = "127.0.0.1:20001", "http://127.0.0.1:9"
        node = Node(address, dashboard, leader.pid, found.started, boot_id(), "/tmp/none")
        record_node(node)
        own = LocalBackend.find(LOCAL)
        assert own is not None and own.dashboard == dashboard
        assert not own.is_gone() and recorded_backend(run, own.record("a-1")) is not None
        other = own_node("http://127.0.0.1:10", address)
        assert other.is_gone(), "another node took its place"
        leader.kill()
    assert own.is_gone() and LocalBackend.find(LOCAL) is None


@pytest.mark.parametrize("record", [None, {}, {"dashboard": 3}, {"job_id": "a-1"}])
def test_a_record_without_a_dashboard_gives_none(
    run: Run, record: dict[str, object] | None
) -> None:
    assert recorded_backend(run, record) is None


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


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    cluster = given_node("http://a:2")
    assert cluster.token == "secret"
    assert "secret" not in f"{cluster!r} {cluster.jobs()!r}"
