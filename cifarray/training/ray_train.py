"""The adapter to Ray Train: starts a run's workers, and tells Ray of their epochs.

Train's own storage is a folder of the driver's machine that nothing is read from: checkpoints go
through our store, and a new group of workers resumes from there.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import UserCallback
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)
from ray.train.v2.api.config import (
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.v2.api.exceptions import TrainingFailedError

from cifarray.errors import RepeatingError, RunFailedError, StoreError
from cifarray.runs.failures.causes import find_cause, worker_cause
from cifarray.store.layout import FAILURES
from cifarray.training.distributed import listen_on_loopback, use_loopback, world
from cifarray.training.failures import epochs_done, on_worker, raise_refusal, refuse_repeat
from cifarray.training.loop import Record
from cifarray.training.trainer import Trainer
from cifarray.training.worker import (
    Work,
    cores,
    evaluate_best,
    open_trainer,
    refuse_without_gpus,
    summary_line,
    train_with_checkpoints,
    write_outcome,
)

CONTROLLER = "ray.train.v2._internal.execution.controller.controller"
"""Ray's logger of Train's controller."""
COLLECTIVE_TIMEOUT_S = 1800
"""How long a rank waits for the others, where none of them waits for the store."""


def train(work: Work) -> None:
    """Train the run's job from the newest whole checkpoint, then evaluate the best one.

    See `train_with_checkpoints` and `write_outcome`. Raises: RunFailedError.
    """
    _fit(work, _train_and_evaluate)


def evaluate(work: Work, checkpoint_key: str) -> None:
    """Evaluate every split from one checkpoint of the store. Raises: RunFailedError."""
    _fit(work, partial(_evaluate, checkpoint_key))


def train_trial(work: Work, callbacks: list[UserCallback]) -> None:
    """Train a trial of several workers; no split but validation is evaluated.

    Raises: RunFailedError for a refusal that the workers left, TrainingFailedError.
    """
    _fit_on_workers(work, _train, callbacks)


def _fit(work: Work, part: Callable[[Work], object]) -> None:
    try:
        _fit_on_workers(work, part, [])
    except TrainingFailedError as error:
        raise RunFailedError(f"training failed: {find_cause(error)}") from error


def _fit_on_workers(
    work: Work, part: Callable[[Work], object], callbacks: list[UserCallback]
) -> None:
    """Have every worker do its part, until all have returned."""
    with tempfile.TemporaryDirectory(prefix="cifarray-train-") as scratch:
        torch_trainer(work, part, Path(scratch), callbacks).fit()
    raise_refusal(work)


def _train_and_evaluate(work: Work) -> None:
    evaluate_best(work, _train(work))


def _train(work: Work) -> Trainer:
    trainer = _open(work)
    train_with_checkpoints(work, trainer, _report)
    return trainer


def _report(record: Record) -> None:
    if world()[0] == 0:
        print(f"epoch {record['epoch']}  {summary_line(record)}", flush=True)
    ray.train.report(record)


def _evaluate(checkpoint_key: str, work: Work) -> None:
    trainer = _open(work)
    with tempfile.TemporaryDirectory() as scratch:
        write_outcome(work, trainer, checkpoint_key, Path(scratch))


def _open(work: Work) -> Trainer:
    """The trainer of this Train worker, which shares the node's cores with the workers on it."""
    logging.getLogger().setLevel(logging.WARNING)  # Ray repeats each record in full
    on_node = ray.train.get_context().get_local_world_size()
    share = max(1, cores() // on_node)
    refuse_without_gpus(work.profile, torch.cuda.is_available())  # Ray names one all the same
    return open_trainer(work, get_device(), work.profile.threads_per_worker or share)


def torch_trainer(
    work: Work,
    part: Callable[[Work], object],
    scratch: Path,
    callbacks: Sequence[UserCallback] = (),
) -> TorchTrainer:
    """A TorchTrainer of the profile's workers; `scratch` is what it takes for its storage."""
    profile = work.profile
    resources = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        resources["GPU"] = profile.gpus_per_worker
    return TorchTrainer(
        partial(on_worker, part, work),
        # Ranks wait for the one that waits for the store.
        torch_config=Torch(timeout_s=COLLECTIVE_TIMEOUT_S + math.ceil(profile.store_patience_s)),
        scaling_config=ScalingConfig(
            num_workers=work.world_size,
            # Packed, two workers would share one pod.
            placement_strategy="SPREAD" if profile.has_pod_per_worker else "PACK",
            use_gpu=profile.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(  # type: ignore[arg-type]  # Train's own, which Ray's stub lacks
            name="-".join(str(part) for part in astuple(work.place) if part is not None),
            storage_path=str(scratch),
            # The second counts workers without a place: unlimited, a run would wait for ever.
            failure_config=FailureConfig(
                max_failures=profile.max_failures, controller_failure_limit=profile.max_failures
            ),
            callbacks=[*callbacks, FailureLog(work)],
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


class Torch(TorchConfig):
    """Torch's process group: over gloo where a worker sees no GPU, so that all can report it."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What sets the group up on the workers."""
        return ProcessGroup


class ProcessGroup(_TorchBackend):
    """The group of a training's workers: on the loopback where one machine has them all.

    NCCL refuses a worker without a GPU in a traceback of its own, and Ray retries that.
    """

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called by Train's controller before the workers start."""
        assert isinstance(backend_config, TorchConfig)
        over_nccl = backend_config.backend == "nccl"
        if over_nccl and not all(worker_group.execute(torch.cuda.is_available)):
            backend_config = replace(backend_config, backend="gloo")
        if len(set(worker_group.execute(node_id))) > 1:
            super().on_start(worker_group, backend_config)
            return
        backend = backend_config.backend
        if backend is None:
            gpus = worker_group.get_resources_per_worker().get("GPU", 0)
            backend = "nccl" if gpus else "gloo"
        port = worker_group.execute_single(0, listen_on_loopback)
        worker_group.execute(_set_torch_distributed_env_vars)
        ranks = range(len(worker_group))
        joining = [
            worker_group.execute_single_async(
                rank, _join, backend=backend, world_rank=rank, world_size=len(ranks), port=port
            )
            for rank in ranks
        ]
        ray.get(joining)


def node_id() -> str:
    """The Ray node that this worker is on."""
    return str(ray.get_runtime_context().get_node_id())


def _join(backend: str, world_rank: int, world_size: int, port: int) -> None:
    _setup_torch_process_group(backend, world_rank, world_size, use_loopback(port))


def _says_more(record: logging.LogRecord) -> bool:
    """Leave out the controller's own traceback of the error by which a callback ended it."""
    return not (record.exc_info and isinstance(record.exc_info[1], RepeatingError))


class FailureLog(UserCallback):
    """Writes a record for every failure of workers, which `status` shows.

    A failure that repeats ends the run: what this raises ends Train's controller at once.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._before: dict[str, Any] | None = None

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Train's controller, which replaces the workers next.

        Raises: RepeatingError.
        """
        logging.getLogger(CONTROLLER).addFilter(_says_more)
        for error in worker_exceptions.values():
            if isinstance(error, RepeatingError):
                raise error
        now, store = datetime.now(UTC), self._work.open_store()
        rank, cause = worker_cause(worker_exceptions)
        done = epochs_done(store, self._work.place.prefix)
        if done is not None and cause.repeats != "never":
            refuse_repeat(cause.sentence, done, self._before)
        said = {str(rank): find_cause(error) for rank, error in worker_exceptions.items()}
        self._before = {
            "at": now.isoformat(timespec="seconds"),
            "epochs": done,
            "rank": rank,
            "cause": cause.sentence,
            "workers": {rank: cause.sentence for rank, cause in said.items()},
        }
        key = self._work.place.key(FAILURES, f"{now.strftime('%Y%m%dT%H%M%S%f')}.json")
        with suppress(StoreError):  # what the store cannot take now must not end the run
            store.write_json(key, self._before)
