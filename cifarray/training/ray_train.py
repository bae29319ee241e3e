"""The adapter to Ray Train: runs a session on every worker, keeps its checkpoints in the store."""

import logging
import math
import os
import secrets
import socket
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
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

from cifarray.errors import (
    CheckpointError,
    CifarrayError,
    DivergedError,
    NoGpuError,
    RepeatingError,
    RunFailedError,
    StoreError,
)
from cifarray.monitoring.ray_metrics import LiveMetrics, live_metrics
from cifarray.runs.causes import find_cause, worker_cause
from cifarray.runs.folders import write_metrics
from cifarray.store.layout import FAILURES
from cifarray.training.checkpoint_store import best_good, checkpoint_name, keep
from cifarray.training.distributed import from_rank_0, listen_on_loopback, use_loopback, world
from cifarray.training.failures import comes_again, epochs_done, refuse_again
from cifarray.training.tensorboard import Board
from cifarray.training.trainer import Trainer
from cifarray.training.worker import (
    Work,
    cores,
    in_words,
    open_trainer,
    raise_refusal,
    refuse_divergence,
    refuse_without_gpus,
    resume,
    write_outcome,
    write_refusal,
)

COLLECTIVE_TIMEOUT_S = 1800
"""How long a rank waits for the others, where none of them waits for the store."""


def train(work: Work) -> None:
    """Train a job on `world_size` workers, going on from the folder's newest whole checkpoint.

    At its end every split is evaluated from the best checkpoint; see `write_outcome`.
    Raises: RunFailedError.
    """
    _fit(work, partial(on_worker, _train_and_evaluate, work))


def evaluate(work: Work, checkpoint_key: str) -> None:
    """Evaluate every split from one checkpoint of the store on `world_size` workers."""
    part = partial(_evaluate_on_worker, checkpoint_key)
    _fit(work, partial(on_worker, part, work))


def _fit(work: Work, function: Any) -> None:
    try:
        fit_on_workers(work, function, name=f"{work.run.run_id}-{work.place.attempt}")
    except TrainingFailedError as error:
        raise RunFailedError(f"training failed: {find_cause(error)}") from error


def fit_on_workers(
    work: Work, function: Any, name: str, callbacks: list[Any] | None = None
) -> None:
    """Run the function on the profile's workers until all have returned.

    Raises: RunFailedError for a refusal that they left, TrainingFailedError.
    """
    with tempfile.TemporaryDirectory(prefix="cifarray-train-") as scratch:
        torch_trainer(work, function, name, Path(scratch), callbacks).fit()
    raise_refusal(work)


def on_worker(part: Callable[[Work], None], work: Work) -> None:
    """Carry out a worker's part; an error that all ranks meet alike is left as a refusal.

    Ray would take it for the failure of a worker, and begin again to meet it again. One that
    comes again but may be this rank's alone is raised as such, so that Ray ends the others too.
    """
    try:
        part(work)
    except (DivergedError, NoGpuError) as error:
        if world()[0] == 0:
            write_refusal(work, error)
    except Exception as error:
        done = epochs_done(work.open_store(), work.prefix)
        if not comes_again(error, 1 if done is None else done):
            raise
        if not isinstance(error, CifarrayError):
            traceback.print_exc()  # Ray hands on the sentence alone
        again = RepeatingError(str(find_cause(error)))
        again.rank, again.host = world()[0], socket.gethostname()
        raise again from error


def torch_trainer(
    work: Work, function: Any, name: str, scratch: Path, callbacks: list[Any] | None = None
) -> TorchTrainer:
    """A TorchTrainer of the profile's workers.

    Train's own storage is a folder of the driver's machine that nothing is read from: checkpoints
    go through our store, and what a new worker group goes on from is read there.
    """
    profile = work.profile
    os.environ.setdefault(
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(profile.worker_start_timeout_s)
    )
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    resources = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        resources["GPU"] = profile.gpus_per_worker
    return TorchTrainer(
        function,
        # Ranks wait for the one that waits for the store.
        torch_config=Torch(timeout_s=COLLECTIVE_TIMEOUT_S + math.ceil(profile.store_patience_s)),
        scaling_config=ScalingConfig(
            num_workers=work.world_size,
            # A pod is made for one worker; packed, two would share what one was given.
            placement_strategy="SPREAD" if profile.kind == "kubernetes" else "PACK",
            use_gpu=profile.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(  # type: ignore[arg-type]  # Train's own, which Ray's stub lacks
            name=name,
            storage_path=str(scratch),
            # The second counts workers that find no room: without a limit a run waits for ever.
            failure_config=FailureConfig(
                max_failures=profile.max_failures, controller_failure_limit=profile.max_failures
            ),
            callbacks=[*(callbacks or ()), FailureLog(work)],
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


class Torch(TorchConfig):
    """Torch's process group: over gloo where a worker sees no GPU, so that all can say so."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What sets the group up on the workers."""
        return ProcessGroup


class ProcessGroup(_TorchBackend):
    """The group of a training's workers: on loopback where one machine has them all.

    NCCL refuses a worker without a GPU in a traceback of its own, and Ray tries that again.
    """

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called by Train's controller before the workers begin."""
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


CONTROLLER = "ray.train.v2._internal.execution.controller.controller"
"""Ray's logger of Train's controller."""


def _says_more(record: logging.LogRecord) -> bool:
    """Leave out the controller's own traceback of what a callback ended it with."""
    return not (record.exc_info and isinstance(record.exc_info[1], RepeatingError))


class FailureLog(UserCallback):
    """Leaves a record beside the run for every time that workers failed, as `status` tells it.

    A failure that comes again ends the run: what this raises ends Train's controller at once.
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
        done = epochs_done(store, self._work.prefix)
        if done is not None and cause.repeats != "never":
            refuse_again(cause.sentence, done, self._before)
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


def last_line(error: Exception) -> str:
    """What an error says in one line: its cause, and what helps."""
    return str(find_cause(error))


def _train_and_evaluate(work: Work) -> None:
    session = train_on_worker(work)
    store, best = work.open_store(), None
    with tempfile.TemporaryDirectory() as scratch:
        if world()[0] == 0:
            best = best_good(store, work.prefix, work.job.metric, Path(scratch) / "best")
        key = from_rank_0(best.key if best else None)
        if key is None:
            raise CheckpointError(f"no whole checkpoint of the run is left in {work.prefix}")
        write_outcome(work, session, key, Path(scratch) / "chosen")


def train_on_worker(work: Work) -> Trainer:
    """Train on this rank from the folder's newest whole checkpoint; Ray hears of every epoch."""
    with live_metrics(
        work.run.run_id, work.place.trial or "", work.run.job.name, world()[0]
    ) as live:
        return _train(work, live)


def _train(work: Work, live: LiveMetrics) -> Trainer:
    store, session = work.open_store(), _open(work)
    with tempfile.TemporaryDirectory() as scratch:
        resume(session, store, work.prefix, Path(scratch))
    board = Board(store, work.prefix)
    life = from_rank_0(secrets.token_hex(2))  # a resumed epoch never writes into an older folder
    for record in session.records():
        live.show(session.history, session.gpu_memory_bytes)
        if world()[0] == 0:
            write_metrics(store, work.prefix, session.history)
            board.show(session)
        refuse_divergence(session.history)  # before its checkpoint: nobody shall go on from there
        name = checkpoint_name(record["epoch"], life)
        with live.keeping_checkpoint():
            state = session.state()
            if world()[0] == 0:
                print(f"epoch {record['epoch']}  {in_words(record)}", flush=True)
                keep(store, work.prefix, name, state, work.job.metric)
            ray.train.report(record)
    if world()[0] == 0:
        write_metrics(store, work.prefix, session.history)
        board.show(session)
    return session


def train_only(work: Work) -> None:
    """What a worker of a larger trial runs: no split but validation is evaluated."""
    on_worker(_train_alone, work)


def _train_alone(work: Work) -> None:
    train_on_worker(work)


def _evaluate_on_worker(checkpoint_key: str, work: Work) -> None:
    session = _open(work)
    with tempfile.TemporaryDirectory() as scratch:
        write_outcome(work, session, checkpoint_key, Path(scratch))


def _open(work: Work) -> Trainer:
    """The session of this Train worker, with the node's cores divided among the workers on it."""
    logging.getLogger().setLevel(logging.WARNING)  # Ray repeats each record in full
    on_node = ray.train.get_context().get_local_world_size()
    share = max(1, cores() // on_node)
    refuse_without_gpus(work.profile, torch.cuda.is_available())  # Ray names one all the same
    return open_trainer(work, get_device(), work.profile.threads_per_worker or share)
