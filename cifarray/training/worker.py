"""One worker's part in a run: open the job, train with checkpoints in the store, leave an outcome.

Ray Train's workers and Ray Tune's trials run it. It knows neither library: each adapter passes a
sink that tells its own of every epoch.
"""

import math
import os
import platform
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cifarray.data.manifest import load_manifest
from cifarray.data.ray_dataset import read_shard
from cifarray.data.split import select_rows
from cifarray.digests import file_sha256
from cifarray.errors import (
    CheckpointError,
    DivergedError,
    JobError,
    KeyMissingError,
    NoGpuError,
    StoreError,
)
from cifarray.models.summary import summarize
from cifarray.models.user_code import unpack_code
from cifarray.monitoring.ray_metrics import live_metrics
from cifarray.report.network import Layer
from cifarray.runs.failures.causes import CODE_PREFIX
from cifarray.runs.metrics_log import write_metrics
from cifarray.runs.status import now
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from cifarray.store.layout import EVALUATION, OUTCOME_FILE, WAITING_FILE, Place
from cifarray.store.patience import Wait, in_the_log
from cifarray.training.checkpoint import read_state
from cifarray.training.checkpoint_store import best_good, checkpoint_name, fetch, keep, newest_good
from cifarray.training.distributed import from_rank_0, gather, world
from cifarray.training.loop import Record
from cifarray.training.preprocessing import restore_normalize
from cifarray.training.rows import RowSource
from cifarray.training.tensorboard import Board
from cifarray.training.trainer import Trainer
from cifarray.training.trials import trial_job
from cifarray.user_folders import provide_home

Sink = Callable[[Record], None]
"""Takes the record of each epoch whose checkpoint is kept; every rank calls its own."""


@dataclass(frozen=True)
class Work:
    """What a worker is told: a run, the folder to work in, and of a trial its values."""

    store: StoreSpec
    run: RunSpec
    place: Place
    """Where checkpoints, metrics and outcome go: an attempt's folder or a trial's."""
    params: Mapping[str, Any] | None = None
    """Dotted job field -> value of a trial; None: the run's own job."""

    @cached_property
    def job(self) -> Job:
        """The run's own job, or the trial's."""
        return self.run.job if self.params is None else trial_job(self.run.job, self.params)

    @property
    def world_size(self) -> int:
        """How many workers share the work."""
        sweep = self.run.job.sweep
        if sweep is not None and self.place.trial is not None:
            return sweep.workers_per_trial
        return self.run.world_size

    @property
    def profile(self) -> Profile:
        """Where the run runs."""
        return self.run.profile

    def open_store(self) -> Store:
        """The store of the run; an operation waits for it as long as the profile says."""
        return _store_of_a_run(self.store, self.profile.store_patience_s, self.place.without_trial)


@cache
def _store_of_a_run(spec: StoreSpec, limit_s: float, attempt: Place) -> Store:
    """One for all that this process does for a run: it connects once, and its waits add up."""
    opened = Store.of(spec)
    key = attempt.key(WAITING_FILE)

    def tell(wait: Wait | None) -> None:
        in_the_log(wait)
        with suppress(StoreError):  # a store that is full or slow may still take this
            if wait is None:
                opened.delete([key])
            else:
                at_once = opened.patient(0.0)
                at_once.write_json(key, {"waits_for": str(wait), "at": now()})

    return opened.patient(limit_s, tell)


def open_trainer(
    work: Work, device: torch.device, threads: int, rows: RowSource | None = None
) -> Trainer:
    """Set torch's threads and open the job on this rank, on rows that were read before if given."""
    provide_home()  # torch.compile asks for a user name, which a worker's pod may not have
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(threads)
    store = work.open_store()
    code = fetch_code(work.run, store)
    with tempfile.TemporaryDirectory(prefix="cifarray-weights-") as folder:
        weights = fetch_weights(work.run, store, Path(folder))
        return Trainer(work.job, rows or open_rows(work, device), code, weights)


def open_rows(work: Work, device: torch.device) -> RowSource:
    """The job's rows, read through Ray Data. Raises: CheckpointError if others were recorded."""
    store = work.open_store()
    manifest = load_manifest(store, work.job.dataset.name, work.run.dataset_digest)
    selection = select_rows(store, manifest, work.job)
    if selection.validation_sha256 != work.run.validation_sha256:
        raise CheckpointError(
            f"validation rows differ from those recorded in run {work.run.run_id}; submit a new run"
        )
    side = work.job.preprocess.resize
    return RowSource(
        manifest=manifest,
        selection=selection,
        read=partial(read_shard, store, manifest, side=side),
        device=device,
        cache_bytes=work.profile.cache_bytes_per_worker,
        side=side,
        store=store,
    )


def fetch_code(run: RunSpec, store: Store) -> Path | None:
    """Unpack the user's code, if the run has any, into a folder of this process."""
    if run.code is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix=CODE_PREFIX))
    unpack_code(store.read(run.code.key), run.code.sha256, folder)
    return folder


def fetch_weights(run: RunSpec, store: Store, folder: Path) -> Path | None:
    """The run's pretrained weights, if it has any, copied into the folder. Raises: JobError."""
    if run.weights is None:
        return None
    path = folder / PurePosixPath(run.weights.key).name
    try:
        store.download(run.weights.key, path)
    except KeyMissingError as error:
        raise JobError(
            f"the run's copy of its weights, {run.weights.key}, is missing; submit the run again"
        ) from error
    found = file_sha256(path)
    if found != run.weights.sha256:
        raise JobError(
            f"the run's weights have sha256 {found}, but {run.weights.sha256} was recorded; "
            "submit the run again"
        )
    return path


def train_with_checkpoints(work: Work, trainer: Trainer, sink: Sink) -> None:
    """Train from the newest whole checkpoint of the folder to the end. All ranks call it together.

    After each epoch rank 0 writes metrics, TensorBoard's files and a checkpoint, in this order, so
    that a loss that diverged is recorded and never resumed from.
    Raises: DivergedError, CheckpointError, StoreError.
    """
    store, prefix, rank = work.open_store(), work.place.prefix, world()[0]
    with tempfile.TemporaryDirectory() as scratch:
        resume(trainer, store, prefix, Path(scratch))
    board, epochs_before = Board(store, prefix), len(trainer.history)
    token = from_rank_0(secrets.token_hex(2))  # a resumed epoch never writes into an older folder

    def write_records() -> None:
        if rank == 0:
            write_metrics(store, prefix, trainer.history)
            board.show(trainer)

    with live_metrics(work.run.run_id, work.place.trial or "", work.run.job.name, rank) as live:
        for record in trainer.records():
            live.show(trainer.history, trainer.gpu_memory_bytes)
            write_records()
            refuse_divergence(record)
            with live.keeping_checkpoint():
                state = trainer.state()
                if rank == 0:
                    name = checkpoint_name(record["epoch"], token)
                    keep(store, prefix, name, state, work.run.job.metric)
            sink(record)
        if len(trainer.history) == epochs_before:  # the attempt had already lost the run
            write_records()
            sink(trainer.history[-1])


def resume(trainer: Trainer, store: Store, folder: str, scratch: Path) -> None:
    """Restore the newest whole checkpoint below a folder, the same one on every rank."""
    found = None
    if world()[0] == 0:
        found = newest_good(store, folder, scratch / "newest")
    key = from_rank_0(found.key if found else None)
    if key is not None:
        trainer.restore(read_state(fetch(store, key, scratch / "resume")))


def summary_line(record: Record) -> str:
    """An epoch's figures for a log."""
    names = ("train.running_loss", "validation.loss", "validation.top1", "images_per_s")
    return "  ".join(f"{name} {record[name]:.4g}" for name in names)


def refuse_divergence(record: Record) -> None:
    """Raise DivergedError if the loss of an epoch is not a finite number."""
    if not math.isfinite(record["train.running_loss"]):
        raise DivergedError(
            f"the loss diverged in epoch {record['epoch']} at lr {record['lr']:.3g}; "
            "lower optimizer.lr, add schedule.warmup_epochs or set train.clip_grad_norm"
        )


def refuse_without_gpus(profile: Profile, sees_one: bool) -> None:
    """Raise NoGpuError on every rank if any of them was promised a GPU and sees none."""
    if not profile.gpus_per_worker:
        return
    found = gather(None if sees_one else socket.gethostname())
    if hosts := sorted({host for host in found if host}):
        raise NoGpuError(
            f"the worker on {' and on '.join(hosts)} should have a GPU, but torch "
            f"{torch.__version__} sees none; check the node's driver and device plugin, and the "
            "image's CUDA libraries"
        )


def evaluate_best(work: Work, trainer: Trainer) -> None:
    """Evaluate every split from the folder's best whole checkpoint; see `write_outcome`.

    Raises: CheckpointError if none is whole.
    """
    store, best = work.open_store(), None
    with tempfile.TemporaryDirectory() as scratch:
        if world()[0] == 0:
            best = best_good(store, work.place.prefix, work.job.metric, Path(scratch) / "best")
        key = from_rank_0(best.key if best else None)
        if key is None:
            raise CheckpointError(
                f"no complete checkpoint of the run is left in {work.place.prefix}"
            )
        write_outcome(work, trainer, key, Path(scratch) / "chosen")


def write_outcome(work: Work, trainer: Trainer, checkpoint_key: str, scratch: Path) -> None:
    """Evaluate every split from a checkpoint; store the rows' predictions, then `outcome.json`.

    The outcome says: checkpoint, epoch, parameters, layers, world size, threads, hardware.
    """
    store = work.open_store()
    state = read_state(fetch(store, checkpoint_key, scratch))
    predictions = trainer.evaluate(state["model"], state["preprocess"])
    if predictions is None:
        return
    for split, rows in predictions.items():
        sink = pa.BufferOutputStream()
        pq.write_table(rows.to_table(), sink, compression="zstd")
        store.write(work.place.key(EVALUATION, f"{split}.parquet"), sink.getvalue().to_pybytes())
    outcome = {
        "checkpoint": checkpoint_key,
        "epoch": state["epoch"],
        "parameters": trainer.parameters,
        "world_size": state["world_size"],
        "threads": state["threads"],
        "hardware": hardware(),
        "history": state["history"],
        "input_shape": state["input_shape"],
        "layers": [asdict(layer) for layer in _layers(trainer, state)],
    }
    store.write_json(work.place.key(OUTCOME_FILE), outcome)


def _layers(trainer: Trainer, state: dict[str, Any]) -> list[Layer]:
    """The network layer by layer, as a preprocessed image passes through it."""
    height, width, channels = state["input_shape"]
    normalize = restore_normalize(trainer.job, state["preprocess"], (height, width, channels))
    images_NCHW = normalize(torch.zeros(1, channels, height, width))
    return summarize(trainer.network, images_NCHW.to(next(trainer.network.parameters()).device))


def hardware() -> dict[str, Any]:
    """What this worker runs on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "processor": _processor(),
        "gpu": gpu,
        "python": sys.version.split()[0],
    }


def cores() -> int:
    """Whole CPUs that this process may use: those it may run on, within its control group's quota.

    A pod's limit shows in the quota alone: https://docs.kernel.org/admin-guide/cgroup-v2.html.
    """
    allowed = len(os.sched_getaffinity(0))
    for path in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        try:
            words = Path("/sys/fs/cgroup", path).read_text(encoding="utf-8").split()
            quota, period = float(words[0]), float((words[1:] or [_v1_period()])[0])
        except (OSError, ValueError, IndexError):  # "max" is no number: no limit
            continue
        if quota > 0:
            return max(1, min(allowed, round(quota / period)))
    return allowed


def _v1_period() -> str:
    return Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text(encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
