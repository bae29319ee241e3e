"""One rank's part in a training: its rows, network and optimizer, saved, restored and judged.

It speaks to the other ranks through torch.distributed alone and knows nothing of Ray.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifarray.data.augment import Augment, Normalize
from cifarray.data.cache import Shard, hold, seed_of
from cifarray.data.image_checks import check_whitening
from cifarray.data.manifest import Manifest
from cifarray.data.rows import decoded_shape
from cifarray.data.selection import Positions, Selection, differences
from cifarray.data.whitening import Spectrum
from cifarray.errors import CheckpointError, JobError
from cifarray.models.sizes import count_parameters
from cifarray.reporting.scores import Predictions
from cifarray.spec.job import Job
from cifarray.training.batches import StepPlan, TrainBatches
from cifarray.training.checkpoint import build_network, restore_rng, rng_state, seed_rng
from cifarray.training.evaluation import predict_shard, validation_figures
from cifarray.training.loop import Record, fit, total_steps, unwrap
from cifarray.training.optimizers import build_optimizer
from cifarray.training.preprocessing import (
    fit_normalize,
    fit_spectrum,
    preprocess_state,
    restore_normalize,
)
from cifarray.training.ranks import gather, share_buffers, sum_over_ranks, world
from cifarray.training.schedules import build_schedule

ShardReader = Callable[[str, Positions, str, int | None], Iterator[pa.Table]]
"""(split, positions, label column, order seed or None) -> tables of image, label and row_id."""


@dataclass(frozen=True)
class RowSource:
    """The dataset as a job sees it: what is selected, and how a rank reads its part."""

    manifest: Manifest
    selection: Selection
    read: ShardReader
    device: torch.device
    cache_bytes: int
    side: int | None = None
    """Of the squares that encoded images become; those stored as pixels need none."""
    _held: dict[str, Shard] = field(default_factory=dict)
    _spectra: list[Spectrum | None] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images as they are held."""
        return decoded_shape(self.manifest, self.side)

    def shard(self, split: str) -> Shard:
        """This rank's rows of a split; read at the first call where they stay on the device."""
        if split not in self._held:
            self._held[split] = self._open(split)
        return self._held[split]

    def spectrum(self) -> Spectrum | None:
        """How train's images vary, on rank 0; computed once for all trials that share the rows."""
        if not self._spectra:
            values = int(np.prod(self.shape))
            self._spectra.append(fit_spectrum(self.shard("train"), values, self.device))
        return self._spectra[0]

    def _open(self, split: str) -> Shard:
        """Resident if train and validation fit the budget together, else streamed."""
        rank, world_size = world()
        positions = self.selection.shard(split, world_size, rank)
        labels = self.selection.labels
        held = (len(self.selection.shard(s, world_size, rank)) for s in ("train", "validation"))
        fits = sum(held) * int(np.prod(self.shape)) <= self.cache_bytes
        return hold(
            lambda seed: map(labels.renumbered, self.read(split, positions, labels.column, seed)),
            rows=len(positions),
            shape=self.shape,
            device=self.device,
            budget_bytes=self.cache_bytes if fits else 0,
        )


class Session:
    """A job on this rank. Every method is called by all ranks together."""

    def __init__(self, job: Job, rows: RowSource, code: Path | None = None) -> None:
        self.job, self._rows = job, rows
        self._rank, self._world_size = world()
        self.history: list[Record] = []
        check_whitening(job.preprocess, self._shape)
        seed_rng(seed_of(job.seed, "weights"))
        self._network = build_network(job, len(self.classes), self._shape, code).to(rows.device)
        self._parameters = count_parameters(self._network)
        seed_rng(seed_of(job.seed, "dropout", self._rank))

    @property
    def classes(self) -> list[str]:
        """Names of the labels that are learnt."""
        return list(self._rows.selection.labels.classes)

    @property
    def parameters(self) -> int:
        """Number of the network's weights."""
        return self._parameters

    @property
    def gpu_memory_bytes(self) -> int | None:
        """What torch holds of this rank's GPU; None on a CPU."""
        device = self._rows.device
        return torch.cuda.memory_reserved(device) if device.type == "cuda" else None

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self._rows.shape

    def shard(self, split: str) -> Shard:
        """This rank's rows of a split."""
        return self._rows.shard(split)

    @cached_property
    def _normalize(self) -> Normalize:
        """Fitted at the first call, unless a checkpoint brought its own."""
        rows = self._rows
        return fit_normalize(self.job, rows.manifest, rows.shape, rows.device, rows.spectrum)

    @cached_property
    def _model(self) -> nn.Module:
        """The network as it is trained: synchronised, compiled and wrapped as asked."""
        options, model = self.job.train, self._network
        if options.sync_batchnorm:
            if self._rows.device.type != "cuda":
                raise JobError(SYNC_BATCHNORM_ON_CPU)
            model = self._network = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if options.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self._world_size > 1:
            device = self._rows.device
            devices = [device] if device.type == "cuda" else None
            model = DistributedDataParallel(model, device_ids=devices)
        return model

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.job.optimizer, unwrap(self._model).parameters())

    @cached_property
    def _average(self) -> AveragedModel | None:
        decay = self.job.train.ema_decay
        if decay is None:
            return None
        return AveragedModel(unwrap(self._model), multi_avg_fn=get_ema_multi_avg_fn(decay))

    @cached_property
    def _batches(self) -> TrainBatches:
        job, selection = self.job, self._rows.selection
        rows = selection.shard_rows("train", self._world_size)
        return TrainBatches(
            shard=self.shard("train"),
            plan=StepPlan.make(rows, job.train.global_batch_size, self._rank),
            augment=Augment(job.augment),
            normalize=self._normalize,
            seed=job.seed,
            rank=self._rank,
            channels_last=job.train.channels_last,
        )

    def records(self) -> Iterator[Record]:
        """Train; one record per epoch, after which `state` may be saved."""
        steps_per_epoch = self._batches.steps_per_epoch
        steps = total_steps(self.job.train, steps_per_epoch)
        for record in fit(
            self._model,
            self._batches,
            self._optimizer,
            build_schedule(self.job.schedule, steps, steps_per_epoch),
            self._validate,
            self.job.train,
            history=self.history,
            average=self._average,
        ):
            record["data_wait"] = self._data_wait(record["step_s"])
            self.history.append(record)
            yield record

    def _data_wait(self, step_s: float) -> float:
        """The share of the steps' time, 0 to 1, that went by without a batch; mean over ranks."""
        share = min(1.0, self._batches.wait.seconds() / step_s)
        shares = torch.tensor(share, dtype=torch.float64, device=self._rows.device)
        return float(sum_over_ranks(shares)) / self._world_size

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds."""
        share_buffers(unwrap(self._model))
        average, labels = self._average, self._rows.selection.labels
        raw = unwrap(self._model).state_dict()
        digest = self._rows.manifest.digest
        return {
            "model": raw if average is None else average.module.state_dict(),
            "raw_model": None if average is None else raw,
            "averaged": None if average is None else int(average.n_averaged),
            "optimizer": self._optimizer.state_dict(),
            "epoch": self.history[-1]["epoch"],
            "step": self.history[-1]["step"],
            "rng": gather(rng_state()),
            "history": self.history,
            "job": self.job.model_dump(mode="json"),
            "dataset": {**self.job.dataset.model_dump(mode="json"), "digest": digest},
            "validation_sha256": self._rows.selection.validation_sha256,
            "classes": self.classes,
            "coarse_classes": list(labels.coarse_classes),
            "fine_to_coarse": list(labels.fine_to_coarse),
            "input_shape": list(self._shape),
            "preprocess": preprocess_state(self._normalize),
            "parameters": self.parameters,
            "world_size": self._world_size,
            "threads": torch.get_num_threads(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises: CheckpointError for other data or another job."""
        digest = self._rows.manifest.digest
        if state["dataset"]["digest"] != digest:
            raise CheckpointError(
                f"the checkpoint was trained on dataset digest {state['dataset']['digest'][:12]}, "
                f"not {digest[:12]}; a run resumes on the data that it began with"
            )
        then = Job.model_validate(state["job"])
        if others := differences(then, self.job):
            raise CheckpointError(
                f"the checkpoint was trained on another selection ({'; '.join(others)}); a run "
                "resumes with the rows and classes that it began with: submit a new run instead"
            )
        if (
            then != self.job
            or state["classes"] != self.classes
            or (state["validation_sha256"] != self._rows.selection.validation_sha256)
        ):
            raise CheckpointError(
                "the checkpoint belongs to another job; a run resumes with the job that it began "
                "with: submit a new run instead"
            )
        self._normalize = self._restored(state["preprocess"])
        average = self._average
        unwrap(self._model).load_state_dict(state["raw_model"] or state["model"])
        if average is not None:
            average.module.load_state_dict(state["model"])
            average.n_averaged.fill_(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.history = list(state["history"])
        if len(state["rng"]) == self._world_size:
            restore_rng(state["rng"][self._rank])

    def evaluate(
        self, weights: dict[str, Any], preprocess: dict[str, Any] | None = None
    ) -> dict[str, Predictions] | None:
        """What these weights say about every row of every split; None on ranks other than 0.

        `preprocess` is that of the weights' checkpoint; without one the session's own is taken.
        """
        self._network.load_state_dict(weights)
        normalize = self._normalize if preprocess is None else self._restored(preprocess)
        results = {}
        for split in ("train", "validation", "test"):
            mine = predict_shard(self._network, self.shard(split), normalize)
            results[split] = Predictions.join(gather(mine))
        return results if self._rank == 0 else None

    def _restored(self, preprocess: dict[str, Any]) -> Normalize:
        """A checkpoint's preprocessing on this rank's device."""
        return restore_normalize(self.job, preprocess, self._shape).to(self._rows.device)

    def _validate(self, model: nn.Module) -> dict[str, float]:
        share_buffers(model)
        mine = predict_shard(model, self.shard("validation"), self._normalize)
        return validation_figures(mine, self._rows.device)


SYNC_BATCHNORM_ON_CPU = (
    "train.sync_batchnorm needs GPU workers, since torch has no SyncBatchNorm on CPUs; set it to "
    "false or take a profile with gpus_per_worker above 0"
)
