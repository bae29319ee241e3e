"""What the adapter to Ray Train says of a failure and asks of Ray; no node is needed for that."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train._internal.utils import get_address_and_port

from cifarray.errors import JobError, RepeatingError, RunFailedError
from cifarray.runs.metrics_log import write_metrics
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.store.layout import FAILURES, Place
from cifarray.training.distributed import listen_on_loopback
from cifarray.training.failures import on_worker, raise_refusal
from cifarray.training.ray_train import FailureLog, Torch, node_id, torch_trainer
from cifarray.training.worker import Work, refuse_without_gpus
from tests.digit_sessions import small_job


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
    return Work(store.spec, spec, Place("few-digits-1", 1))


def test_a_trainer_has_the_runs_workers_with_what_the_profile_gives_each(
    work: Work, tmp_path: Path
):
    trainer = torch_trainer(work, print, tmp_path)
    scaling, run = trainer.scaling_config, trainer.run_config
    assert scaling.num_workers == 2
    assert scaling.resources_per_worker == {"CPU": 0.25}
    assert not scaling.use_gpu
    assert run.failure_config.max_failures == 7
    assert run.storage_path == str(tmp_path), "Ray writes nothing to the store"


def test_gpus_are_asked_for_where_the_profile_has_them(work: Work, tmp_path: Path):
    profile = work.profile.model_copy(update={"gpus_per_worker": 0.5})
    on_gpus = replace(work, run=work.run.model_copy(update={"profile": profile}))
    scaling = torch_trainer(on_gpus, print, tmp_path).scaling_config
    assert scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 0.25, "GPU": 0.5}


def test_a_refusal_of_all_workers_is_left_where_the_driver_finds_it(work: Work):
    def see_none(work: Work) -> None:
        refuse_without_gpus(work.profile.model_copy(update={"gpus_per_worker": 1.0}), False)

    on_worker(see_none, work)
    with pytest.raises(RunFailedError, match="should have a GPU, but torch"):
        raise_refusal(work)


def test_an_error_of_the_networks_code_is_raised_as_one_that_comes_again(work: Work):
    def misspell(work: Work) -> None:
        work.places  # type: ignore[attr-defined]  # noqa: B018

    with pytest.raises(RepeatingError, match="AttributeError: 'Work' object has no attribute"):
        on_worker(misspell, work)


def test_a_job_that_one_rank_alone_refuses_ends_all_ranks(work: Work):
    def refuse(work: Work) -> None:
        raise JobError("the network wants other images")

    with pytest.raises(RepeatingError, match="the network wants other images"):
        on_worker(refuse, work)


def test_what_the_machine_did_is_raised_as_it_is(work: Work):
    def lose(work: Work) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        on_worker(lose, work)


def test_the_controller_hears_of_an_error_that_comes_again_and_keeps_no_record_of_it(work: Work):
    log = FailureLog(work)
    with pytest.raises(RepeatingError, match="no attribute"):
        log.after_exception(None, {0: RuntimeError("a peer"), 1: RepeatingError("no attribute")})
    assert not work.open_store().list(work.place.key(FAILURES))


def test_the_controllers_traceback_of_such_an_end_stays_out_of_the_log(
    work: Work, caplog: pytest.LogCaptureFixture
):
    from ray.train.v2._internal.execution.controller import controller

    with pytest.raises(RepeatingError) as ended:
        FailureLog(work).after_exception(None, {0: RepeatingError("no attribute")})
    controller.logger.error("of ours", exc_info=ended.value)
    controller.logger.error("of Ray", exc_info=ValueError("another"))
    assert [record.message for record in caplog.records] == ["of Ray"]


def test_an_unknown_error_is_tried_once_more_and_ends_the_run_when_it_says_the_same(work: Work):
    log = FailureLog(work)
    log.after_exception(None, {1: RuntimeError("step 12 went wrong")})
    (kept,) = work.open_store().list(work.place.key(FAILURES))
    record = work.open_store().read_json(kept.key)
    assert record["workers"] == {"1": "RuntimeError: step 12 went wrong"}
    assert (record["rank"], record["epochs"]) == (1, 0)
    with pytest.raises(RepeatingError, match="the same error occurred twice after epoch 0"):
        log.after_exception(None, {0: RuntimeError("step 13 went wrong")})


def test_an_unknown_error_after_another_epoch_is_another_error(work: Work):
    log, store = FailureLog(work), work.open_store()
    log.after_exception(None, {0: RuntimeError("it went wrong")})
    write_metrics(store, work.place.prefix, [{"epoch": 1}])
    log.after_exception(None, {0: RuntimeError("it went wrong")})
    assert len(store.list(work.place.key(FAILURES))) == 2


def test_the_death_of_a_worker_is_never_taken_for_an_error_that_comes_again(work: Work):
    killed = RuntimeError(
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
        "Worker exit detail: Worker unexpectedly exits with a connection error code 2."
    )
    log = FailureLog(work)
    for _ in range(3):
        log.after_exception(None, {0: killed})
    assert len(work.open_store().list(work.place.key(FAILURES))) == 3


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
