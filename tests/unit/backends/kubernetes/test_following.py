"""A follower of a run on Kubernetes never ends a run, whatever it sees or does not see."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.backends.follow import Follower
from cifarray.runs import Status
from cifarray.store import Store
from tests.unit.backends.kubernetes.api_server import ApiServer, open_kube, write_kubeconfig
from tests.unit.backends.kubernetes.kube_requests import (
    JOB_ID,
    cluster_of,
    put_rayjob,
    recorded_run,
)


def test_an_api_server_that_is_away_is_a_remark_and_the_run_is_followed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(path))
    cluster = cluster_of(open_kube(patience_s=0.1))
    run = recorded_run(Store.open(str(tmp_path / "store")))
    run.set_cluster(cluster.record(JOB_ID))
    silent = (datetime.now(UTC) - timedelta(seconds=500)).isoformat()
    run.change_status(lambda s: dataclasses.replace(s, state="running", heartbeat_at=silent))
    remarks: list[str] = []

    def show(status: Status, remark: str) -> None:
        remarks.append(remark)
        if len(remarks) == 3:
            run.change_status(lambda s: dataclasses.replace(s, state="finished"))

    outcome = Follower(run, cluster, JOB_ID).follow(show, poll_s=0.01)
    assert outcome.state == "finished"
    assert "does not answer" in remarks[0]


def test_a_rayjob_that_has_ended_without_a_word_ends_the_follower_and_not_the_record(
    api: ApiServer, tmp_path: Path
) -> None:
    cluster = cluster_of(open_kube())
    run = recorded_run(Store.open(str(tmp_path / "store")))
    run.set_cluster(cluster.record(JOB_ID))
    put_rayjob(api, stage="Failed", reason="DeadlineExceeded", message="longer than 60 s")
    outcome = Follower(run, cluster, JOB_ID, closing_s=0.0).follow(lambda status, remark: None)
    assert outcome.state == "lost"
    assert "DeadlineExceeded: longer than 60 s" in outcome.cause
    assert run.status().state == "pending"
