"""The checks of a laptop: what it has, what it lacks, and that they leave nothing behind."""

import os
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.base import FAILED, PASSED, SKIPPED
from cifarray.backends.choice import backend_of
from cifarray.backends.local import checks as machine
from cifarray.backends.local.checks import LocalSite
from cifarray.backends.local.node import too_little_shared_memory
from cifarray.backends.local.state import Node
from cifarray.backends.ray_jobs.backend import RayJobsBackend
from cifarray.doctor.checks import diagnose
from cifarray.spec.profile import Profile
from cifarray.store import Store

GIVEN = {"address": "127.0.0.1:9", "dashboard": "http://127.0.0.1:9"}


def here(store: str | Path = "store", **fields: Any) -> LocalSite:
    profile = Profile.model_validate({"name": "mine", "kind": "local", **fields})
    backend = backend_of(profile)
    assert isinstance(backend, RayJobsBackend)
    return LocalSite(backend, Store.open(str(store)))


def test_a_sound_machine_fails_nothing_and_no_store_is_made(cifarray_home: Path) -> None:
    given = here(cifarray_home / "store", workers=1, cpus_per_worker=0.5)
    found = list(diagnose(given.profile, lambda: given.store))
    assert [each.check for each in found][-1] == "store"
    failed = {each.check for each in found if each.result.outcome == FAILED}
    assert failed <= {"disk space", "shared memory"}  # a container may have little of both
    assert not (cifarray_home / "store").exists()


def test_workers_that_leave_no_cpu_to_read_on_fail() -> None:
    cpus = len(os.sched_getaffinity(0))
    result = machine.processors(here(workers=cpus, cpus_per_worker=1))
    assert result.outcome == FAILED
    assert "lower workers or cpus_per_worker in profile mine" in result.remedy


def test_gpus_are_looked_for_only_where_workers_ask_for_them() -> None:
    assert machine.gpus(here()).outcome == SKIPPED
    wanted = machine.gpus(here(gpus_per_worker=1000))
    assert wanted.outcome == FAILED and "workers request 2000" in wanted.finding


def test_a_node_that_the_profile_names_has_to_answer() -> None:
    found = {
        each.check: each.result for each in diagnose(here(**GIVEN).profile, lambda: here().store)
    }
    assert found["Ray node"].outcome == FAILED
    assert "does not answer" in found["Ray node"].finding
    assert found["ports"].outcome == found["shared memory"].outcome == SKIPPED


@pytest.mark.parametrize(("free", "told"), [(64 << 20, "67.1 MB"), (0, "0 B"), (2 << 30, "")])
def test_little_shared_memory_is_said_and_fails_nothing(free: int, told: str) -> None:
    sentence = too_little_shared_memory(free)
    assert (sentence is not None) is bool(told)
    if sentence:
        assert f"only {told} are free in /dev/shm" in sentence
        assert "--shm-size" in sentence
    assert machine.shared_memory(here()).outcome == PASSED


def test_our_own_node_answers_with_its_version(ray_node: Node) -> None:
    import ray

    result = machine.ray_node(here())
    assert (result.outcome, result.finding) == (
        PASSED,
        f"{ray_node.dashboard}, Ray {ray.__version__}",
    )


def test_a_state_folder_that_cannot_be_made_fails_and_skips_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "file" / "state"))
    found = {each.check: each.result for each in diagnose(here().profile, lambda: here().store)}
    assert "CIFARRAY_STATE_DIR" in found["state folder"].finding
    assert found["Ray node"].outcome == SKIPPED


def test_the_room_for_a_store_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    finding = machine.disk(here(tmp_path / "a" / "b")).finding
    assert f"free for {tmp_path / 'a' / 'b'}" in finding
