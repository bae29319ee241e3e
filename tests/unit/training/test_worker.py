"""What the adapter to Ray Train says of a failure and asks of Ray; no node is needed for that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import OutOfMemoryError
from ray.train._internal.utils import get_address_and_port
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from cifarray.errors import RunFailedError
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.training.rendezvous import listen_on_loopback
from cifarray.training.work import Work, raise_refusal, refuse_without_gpus
from cifarray.training.worker import Torch, node_id, on_worker, root_cause, torch_trainer
from tests.digit_sessions import small_job


def test_the_first_workers_own_error_is_what_is_told():
    remote = RuntimeError(
        'ray::train()\n  File "session.py", line 3\n'
        "cifarray.errors.RunFailedError: the loss diverged in epoch 2"
    )
    error = WorkerGroupError("2 workers failed", {1: remote, 0: RuntimeError("other")})
    assert isinstance(error, TrainingFailedError)
    assert root_cause(error) == "RunFailedError: the loss diverged in epoch 2"


def test_an_error_of_the_controller_is_told_as_it_is():
    assert "no room" in root_cause(ControllerError(RunFailedError("no room")))


def test_an_error_without_words_is_told_by_its_kind():
    assert root_cause(WorkerGroupError("failed", {0: MemoryError()})) == "MemoryError"


def test_a_worker_that_ray_ended_for_lack_of_memory_is_told_in_one_sentence():
    page = (
        "6 worker(s) were killed due to the node running low on memory. Memory on the node was "
        "22.40GB used / 23.54GB limit (0.951717)\nTop 10 memory users: PID\tMEM(GB)\n"
        "Refer to the documentation on how to address the out of memory issue: https://docs.ray.io"
    )
    said = root_cause(WorkerGroupError("1 worker failed", {0: OutOfMemoryError(page)}))
    assert said.startswith("Ray ended the worker, since its node ran out of memory")
    assert "documentation" not in said


@pytest.fixture
def work(tmp_path: Path) -> Work:
    spec = RunSpec(
        run_id="few-digits-1",
        job=small_job(),
        profile=Profile(name="p", kind="local", workers=3, cpus_per_worker=0.25, max_failures=7),
        world_size=2,
        dataset_digest="0" * 64,
        validation_rows=16,
        validation_sha256="0" * 64,
        submitted_at="2026-11-23T10:00:00+00:00",
        versions={},
    )
    store = Store.open(str(tmp_path / "store"))
    return Work(store.spec, spec, spec.job, "runs/few-digits-1/attempts/1", world_size=2)


def test_a_trainer_has_the_runs_workers_with_what_the_profile_gives_each(
    work: Work, tmp_path: Path
):
    trainer = torch_trainer(work, print, "few-digits-1-1", tmp_path)
    scaling, run = trainer.scaling_config, trainer.run_config
    assert scaling.num_workers == 2
    assert scaling.resources_per_worker == {"CPU": 0.25}
    assert not scaling.use_gpu
    assert run.failure_config.max_failures == 7
    assert run.storage_path == str(tmp_path), "Ray writes nothing to the store"


def test_gpus_are_asked_for_where_the_profile_has_them(work: Work, tmp_path: Path):
    profile = work.profile.model_copy(update={"gpus_per_worker": 0.5})
    on_gpus = Work(
        work.store,
        work.run.model_copy(update={"profile": profile}),
        work.job,
        work.folder,
        work.world_size,
    )
    scaling = torch_trainer(on_gpus, print, "few-digits-1-1", tmp_path).scaling_config
    assert scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 0.25, "GPU": 0.5}


def test_a_refusal_of_all_workers_is_left_where_the_driver_finds_it(work: Work):
    def see_none(work: Work) -> None:
        refuse_without_gpus(work.profile.model_copy(update={"gpus_per_worker": 1.0}), False)

    on_worker(see_none, work)
    with pytest.raises(RunFailedError, match="was promised a GPU and torch"):
        raise_refusal(work)


class Workers:
    """A group of which some see a GPU; it keeps the backends that it was given."""

    def __init__(self, *see_one: bool, machines: int) -> None:
        self.see_one = see_one
        self.machines = [f"node-{number}" for number in range(machines)]
        self.backends: list[str] = []
        self.meet: list[Callable[..., Any]] = []
        """What was asked of rank 0."""

    def __len__(self) -> int:
        return len(self.see_one)

    def execute(self, function: Callable[..., Any], **given: Any) -> list[Any]:
        if function is torch.cuda.is_available:
            return list(self.see_one)
        return self.machines if function is node_id else []

    def execute_single(self, rank: int, function: Callable[..., Any]) -> tuple[str, int]:
        self.meet.append(function)
        return "127.0.0.1", 1

    def execute_single_async(self, rank: int, function: Any, *, backend: str, **given: Any) -> Any:
        self.backends.append(backend)
        raise RuntimeError("no worker here")


@pytest.mark.parametrize("machines", [1, 2])
@pytest.mark.parametrize(
    ("see_one", "wanted", "backend"),
    [
        ((True, True), "nccl", "nccl"),
        ((True, False), "nccl", "gloo"),
        ((False, False), "gloo", "gloo"),
    ],
)
def test_workers_talk_over_gloo_where_one_sees_no_gpu(
    see_one: tuple[bool, ...], wanted: str, backend: str, machines: int
):
    workers = Workers(*see_one, machines=machines)
    with pytest.raises(RuntimeError, match="no worker here"):
        Torch().backend_cls().on_start(workers, Torch(backend=wanted))  # type: ignore[arg-type]
    assert workers.backends == [backend]
    assert workers.meet == [listen_on_loopback if machines == 1 else get_address_and_port]
