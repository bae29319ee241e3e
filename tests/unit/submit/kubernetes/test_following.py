"""A follower of a run on Kubernetes never closes a run that it merely cannot see."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.errors import ClusterError
from cifarray.store import Store
from cifarray.submit.follow import Follower
from tests.unit.submit.kubernetes.api_server import ApiServer, open_kube, write_kubeconfig
from tests.unit.submit.kubernetes.kube_requests import (
    JOB_ID,
    cluster_of,
    put_rayjob,
    recorded_run,
)


def test_an_api_server_that_stays_away_ends_the_command_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(path))
    cluster = cluster_of(open_kube(patience_s=0.1))
    run = recorded_run(Store.open(str(tmp_path / "store")))
    run.set_cluster(cluster.record(JOB_ID))
    silent = (datetime.now(UTC) - timedelta(seconds=500)).isoformat()
    run.change_status(lambda s: dataclasses.replace(s, state="running", heartbeat_at=silent))
    follower = Follower(run, cluster, JOB_ID, silence_s=0.0)
    with pytest.raises(ClusterError, match=r"does not answer .* goes on without this command"):
        follower.follow(lambda status, remark: None, poll_s=0.01)
    assert run.status().state == "running"


def test_a_rayjob_that_has_ended_without_a_word_closes_the_run(
    api: ApiServer, tmp_path: Path
) -> None:
    cluster = cluster_of(open_kube())
    run = recorded_run(Store.open(str(tmp_path / "store")))
    run.set_cluster(cluster.record(JOB_ID))
    put_rayjob(api, stage="Failed", reason="DeadlineExceeded", message="longer than 60 s")
    status = Follower(run, cluster, JOB_ID, closing_s=0.0).follow(lambda status, remark: None)
    assert status.state == "failed"
    assert "DeadlineExceeded: longer than 60 s" in (status.error or "")
