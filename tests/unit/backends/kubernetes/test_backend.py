"""The cluster that a profile opens, what a run records of it, and how others find it again."""

from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.kubernetes.backend import KubernetesBackend, open_cluster
from cifarray.backends.kubernetes.rayjob import rayjob_name
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.backends.submit import launch
from cifarray.backends.trust import recorded_backend, remember_context, remember_submission
from cifarray.errors import ClusterError, JobError, UntrustedError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.store import Store
from tests.loopback import answering
from tests.unit.backends.kubernetes.api_server import ApiServer, write_kubeconfig
from tests.unit.backends.kubernetes.kube_requests import (
    JOB_ID,
    RUN_ID,
    applied_record,
    profile,
    recorded_run,
    request,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded_run(Store.open(str(tmp_path / "store")))


def recorded(run: Run, record: dict[str, Any], named: Profile | None = None) -> KubernetesBackend:
    cluster = recorded_backend(run, record, named)
    assert isinstance(cluster, KubernetesBackend)
    return cluster


def test_ray_jobs_go_to_the_address_that_the_profile_names(api: ApiServer, run: Run) -> None:
    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, b'{"submission_id": "a", "status": "RUNNING"}'

    with answering(answer) as address:
        mine = profile(mode="ray-jobs", dashboard=address)
        cluster = open_cluster(mine)
        for each in (cluster, recorded(run, cluster.record(JOB_ID), mine)):
            jobs = each.jobs()
            assert isinstance(jobs, RayJobs) and jobs.dashboard == each.dashboard == address
            found = jobs.find(JOB_ID)
            assert found is not None and found.status == "RUNNING"


def test_a_submission_in_mode_ray_jobs_is_a_job_of_the_raycluster(api: ApiServer, run: Run) -> None:
    asked: list[str] = []

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(request)
        return (200 if request.startswith("POST") else 404), {}, b"{}"

    with answering(answer) as address:
        job_id = launch(run, open_cluster(profile(mode="ray-jobs", dashboard=address)))
    assert job_id == f"{RUN_ID}-1" and asked[-1] == "POST /api/jobs/"
    record = run.status().cluster or {}
    assert (record["job_id"], record["dashboard"], record["own"]) == (job_id, address, False)
    assert record["kubernetes"]["mode"] == "ray-jobs"


def test_without_an_address_the_dashboard_is_behind_a_command(api: ApiServer, run: Run) -> None:
    cluster = open_cluster(profile(mode="ray-jobs"))
    assert cluster.dashboard.startswith("kubectl -n cifarray port-forward")
    assert recorded(run, cluster.record(JOB_ID)).dashboard == cluster.dashboard


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "ray-jobs", "dashboard": "10.0.0.5:8265"}, "is not http://host:port"),
        ({"dashboard": "http://10.0.0.5:8265"}, "in mode rayjob each run has its own"),
    ],
)
def test_a_dashboard_that_cannot_be_used_is_refused(
    api: ApiServer, fields: dict[str, str], words: str
) -> None:
    with pytest.raises(JobError, match=words):
        open_cluster(profile(**fields))


def test_the_record_of_an_applied_run_leads_to_its_rayjob(api: ApiServer, run: Run) -> None:
    record = applied_record(request(namespace="team-a"))
    assert record["job_id"] == JOB_ID == rayjob_name(RUN_ID, 1)
    cluster = recorded(run, record, profile(namespace="team-a"))
    assert (cluster.kube.namespace, cluster.kube.context) == ("team-a", "tests")
    assert cluster.certain and not cluster.shared
    assert RUN_ID in record["dashboard"]


def test_it_is_the_record_that_a_submission_writes_but_for_the_context(api: ApiServer) -> None:
    cluster = open_cluster(profile(context="tests", retries=5))
    submitted = cluster.record(JOB_ID)
    applied = applied_record(request(context="tests", retries=5))
    assert applied.keys() == submitted.keys()
    assert {name for name in applied if applied[name] != submitted[name]} == {"dashboard"}
    assert "context" not in applied_record(request())["kubernetes"]


@pytest.fixture
def two_contexts(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_kubeconfig(tmp_path / "two", api.address, ("mine", "other"))
    monkeypatch.setenv("KUBECONFIG", str(path))


@pytest.mark.usefixtures("two_contexts")
def test_a_recorded_context_is_used_where_the_users_profile_has_it(run: Run) -> None:
    record = open_cluster(profile(context="other")).record(JOB_ID)
    cluster = recorded(run, record, profile(context="other"))
    assert (cluster.kube.context, cluster.certain) == ("other", True)


@pytest.mark.usefixtures("two_contexts")
def test_a_recorded_context_of_this_kubeconfig_that_nobody_named_is_refused(run: Run) -> None:
    record = open_cluster(profile(context="other")).record(JOB_ID)
    with pytest.raises(UntrustedError, match=r"namespace cifarray of context other, .* --cluster"):
        recorded(run, record)


@pytest.mark.usefixtures("two_contexts")
def test_the_context_by_which_a_run_went_from_here_is_used_when_another_is_current(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: ApiServer
) -> None:
    remember_submission(run.spec())
    remember_context(run.id, "mine")
    record = open_cluster(profile()).record(JOB_ID)
    path = write_kubeconfig(tmp_path / "switched", api.address, ("other", "mine"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert recorded(run, record).kube.context == "mine"


@pytest.mark.usefixtures("two_contexts")
def test_a_recorded_context_that_this_kubeconfig_lacks_gives_way_to_the_current_one(
    run: Run,
) -> None:
    cluster = recorded(run, applied_record(request(context="a-colleagues")))
    assert (cluster.kube.context, cluster.certain) == ("mine", False)


@pytest.mark.usefixtures("two_contexts")
def test_the_context_of_a_profile_that_the_command_names_wins(run: Run) -> None:
    record = applied_record(request(context="a-colleagues", namespace="team-a"))
    cluster = recorded(run, record, profile(context="other", namespace="team-a"))
    assert (cluster.kube.context, cluster.kube.namespace) == ("other", "team-a")
    assert cluster.certain


def test_without_any_kubeconfig_a_recorded_context_is_one_sentence(run: Run) -> None:
    with pytest.raises(ClusterError, match="no kubeconfig found"):
        recorded(run, applied_record(request(context="a-colleagues"))).address  # noqa: B018
