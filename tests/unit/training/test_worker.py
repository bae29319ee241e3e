"""What the adapter to Ray Train says of a failure and asks of Ray; no node is needed for that."""

from pathlib import Path

import pytest
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from cifarray.errors import RunFailedError
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.training.work import Work
from cifarray.training.worker import root_cause, torch_trainer
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


def test_a_trainer_has_the_runs_workers_with_what_the_profile_gives_each(work: Work):
    trainer = torch_trainer(work, print, "validation.loss", "few-digits-1-1")
    scaling, run = trainer.scaling_config, trainer.run_config
    assert scaling.num_workers == 2
    assert scaling.resources_per_worker == {"CPU": 0.25}
    assert not scaling.use_gpu
    assert run.failure_config.max_failures == 7
    assert run.storage_path == work.open_store().path(f"{work.folder}/checkpoints")
    keep = run.checkpoint_config
    assert keep.num_to_keep == 1
    assert keep.checkpoint_score_attribute == "validation.loss"
    assert keep.checkpoint_score_order == "min"


def test_gpus_are_asked_for_where_the_profile_has_them(work: Work):
    profile = work.profile.model_copy(update={"gpus_per_worker": 0.5})
    on_gpus = Work(
        work.store,
        work.run.model_copy(update={"profile": profile}),
        work.job,
        work.folder,
        work.world_size,
    )
    scaling = torch_trainer(on_gpus, print, None, "few-digits-1-1").scaling_config
    assert scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 0.25, "GPU": 0.5}
