"""What a profile of a Kubernetes cluster asks for is checked before anything is submitted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarray.errors import JobError
from cifarray.spec.load import load_profile, profile_names
from cifarray.spec.profile import Profile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def load(folder: Path, section: dict[str, Any], **fields: Any) -> Profile:
    """The profile of a file with these fields; `section` is that of Kubernetes."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"kind": "kubernetes", **fields, "kubernetes": section}))
    return load_profile(str(path))


def refusal(folder: Path, section: dict[str, Any], **fields: Any) -> str:
    """The sentence with which such a profile is refused."""
    with pytest.raises(JobError) as caught:
        load(folder, section, **fields)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["worker_memory", "worker_shm", "head_memory", "head_shm"])
def test_memory_that_is_no_quantity_is_refused_with_its_field(folder: Path, name: str):
    said = refusal(folder, {name: "16 GB"})
    assert f"kubernetes.{name}: not a Kubernetes quantity" in said
    assert "'16 GB'" in said


@pytest.mark.parametrize("name", ["worker_cpu", "worker_cpu_limit", "head_cpu", "head_cpu_limit"])
def test_cpus_that_are_no_quantity_are_refused_with_their_field(folder: Path, name: str):
    assert f"kubernetes.{name}: not a Kubernetes quantity" in refusal(folder, {name: "two"})
    assert "some CPU" in refusal(folder, {name: "0"})


def test_a_fraction_of_a_byte_is_not_taken_for_megabytes(folder: Path):
    assert "512Mi" in refusal(folder, {"worker_memory": "512m"})


@pytest.mark.parametrize("part", ["worker", "head"])
def test_a_limit_below_what_is_asked_for_is_refused(folder: Path, part: str):
    said = refusal(folder, {f"{part}_cpu": "4", f"{part}_cpu_limit": "3500m"})
    assert f"{part}_cpu_limit 3500m is below {part}_cpu 4" in said


def test_terabytes_of_shared_memory_are_an_amount_like_any_other(folder: Path):
    spec = load(folder, {"worker_shm": "1Ti", "worker_memory": "2Ti"}).kubernetes
    assert spec is not None and spec.worker_shm == "1Ti"


def test_a_part_of_a_gpu_is_refused_on_kubernetes_alone(folder: Path):
    assert "gpus_per_worker 0.5 is not a whole number" in refusal(folder, {}, gpus_per_worker=0.5)
    assert Profile(name="here", kind="local", gpus_per_worker=0.5).gpus_per_worker == 0.5


@pytest.mark.parametrize(
    ("section", "cpus", "seen"),
    [
        ({"worker_cpu": "4"}, 5, 4),
        ({"worker_cpu": "4"}, 4, 4),
        ({"worker_cpu": "1500m"}, 2.5, 2),
        ({"worker_cpu": "500m", "worker_cpu_limit": "2"}, 3, 2),
    ],
)
def test_a_worker_that_takes_all_that_its_pod_has_is_refused(
    folder: Path, section: dict[str, Any], cpus: float, seen: int
):
    said = refusal(folder, section, cpus_per_worker=cpus)
    assert f"cpus_per_worker {cpus:g} leaves" in said
    assert f"Ray counts {seen} CPUs" in said


def test_a_worker_may_take_a_part_of_the_limit_that_is_rounded_up(folder: Path):
    section = {"worker_cpu": "500m", "worker_cpu_limit": "1500m"}
    assert load(folder, section, cpus_per_worker=1.5).cpus_per_worker == 1.5


def test_the_pods_of_the_long_lived_cluster_are_not_the_profiles(folder: Path):
    assert load(folder, {"mode": "ray-jobs", "worker_cpu": "1"}, cpus_per_worker=6)


def test_the_shipped_profiles_pass():
    assert [load_profile(name).name for name in profile_names()] == profile_names()
