"""One rank's part of a training: its rows, network and optimizer; saving, restoring, evaluating.

It talks to the other ranks through torch.distributed alone and knows nothing of Ray.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifarray.data.augment import Augment
from cifarray.data.augment.normalize import Normalize
from cifarray.data.manifest import Manifest
from cifarray.data.shard import Shard, seed_of
from cifarray.data.split import Selection, differences
from cifarray.errors import CheckpointError, JobError
from cifarray.models.pretrained import load_pretrained
from cifarray.models.registry import is_user_network
from cifarray.models.summary import count_parameters
from cifarray.models.user_network import check_unused
from cifarray.report.scores import Predictions
from cifarray.spec.augment import check_whitening
from cifarray.spec.job import Job
from cifarray.training.batches import StepPlan, TrainBatches
from cifarray.training.checkpoint import (
    build_network,
    load_weights,
    restore_rng,
    rng_state,
    seed_rng,
)
from cifarray.training.distributed import gather, share_buffers, sum_over_ranks, world
from cifarray.training.evaluation import predict_shard, validation_figures
from cifarray.training.features import FeatureRows
from cifarray.training.loop import Record, fit, total_steps, unwrap
from cifarray.training.network_checks import check_network
from cifarray.training.optimizers import build_optimizer
from cifarray.training.preprocessing import fit_normalize, preprocess_state, restore_normalize
from cifarray.training.rows import RowSource
from cifarray.training.schedules import build_schedule

SYNC_BATCHNORM_ON_CPU = (
    "train.sync_batchnorm requires GPU workers, because torch has no SyncBatchNorm for CPUs; "
    "set it to false or use a profile with gpus_per_worker above 0"
)


class Trainer:
    """A job on this rank. Every method is called by all ranks together."""

    def __init__(
        self, job: Job, rows: RowSource, code: Path | None = None, weights: Path | None = None
    ) -> None:
        """`code` is the folder of a user-defined network, `weights` the file of pretrained ones."""
        self.job, self._rows = job, rows
        self._rank, self._world_size = world()
        self.history: list[Record] = []
        check_whitening(job.preprocess, rows.shape)
        shard_rows = rows.selection.shard_rows("train", self._world_size)
        check_network(job, shard_rows, rows.shape, len(self.classes), code)
        seed_rng(seed_of(job.seed, "weights"))
        network = build_network(job, len(self.classes), rows.shape, code)
        load_pretrained(network, job.model, weights)
        self.network = network.to(rows.device)
        """The network itself, without what training wraps around it."""
        if is_user_network(job.model.name):
            seen = job.preprocess.seen(rows.shape)
            check_unused(job.model.name, self.network, len(self.classes), seen, self._world_size)
        self.parameters = count_parameters(self.network)
        self._features: FeatureRows | None = None
        if job.model.features is not None:
            assert weights is not None  # without any, `load_pretrained` has refused the job
            self._features = FeatureRows(job, rows, self.network, weights)
        seed_rng(seed_of(job.seed, "dropout", self._rank))

    @property
    def classes(self) -> list[str]:
        """Names of the labels that are learned."""
        return list(self._rows.selection.labels.classes)

    @property
    def gpu_memory_bytes(self) -> int | None:
        """What torch holds of this rank's GPU; None on a CPU."""
        device = self._rows.device
        return torch.cuda.memory_reserved(device) if device.type == "cuda" else None

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that validation evaluates: with `train.ema_decay` the averaged one."""
        return unwrap(self._model) if self._average is None else self._average.module

    def shard(self, split: str) -> Shard:
        """This rank's rows of a split, with features for images where the job caches them."""
        if self._features is not None:
            return self._features.shard(split, self._image_normalize)
        return self._rows.shard(split)

    @property
    def normalize(self) -> Normalize:
        """What `shard`'s rows go through before the network: features are scaled already."""
        return self._image_normalize if self._features is None else self._features.as_they_are

    @cached_property
    def _image_normalize(self) -> Normalize:
        """Fitted at the first call, unless a checkpoint brought its own."""
        rows = self._rows
        return fit_normalize(self.job, rows.manifest, rows.shape, rows.device, rows.spectrum)

    @cached_property
    def _model(self) -> nn.Module:
        """The network as it is trained: synchronized, compiled and wrapped as asked."""
        options, model = self.job.train, self.network
        if options.sync_batchnorm:
            if self._rows.device.type != "cuda":
                raise JobError(SYNC_BATCHNORM_ON_CPU)
            model = self.network = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if options.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self._world_size > 1:
            device = self._rows.device
            devices = [device] if device.type == "cuda" else None
            model = DistributedDataParallel(model, device_ids=devices)
        return model

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.job.optimizer, unwrap(self._model).named_parameters())

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
            normalize=self.normalize,
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
        """The share of the steps' time, 0 to 1, spent waiting for batches; mean over ranks."""
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
            "input_shape": list(self._rows.shape),
            "preprocess": preprocess_state(self._image_normalize),
            "parameters": self.parameters,
            "world_size": self._world_size,
            "threads": torch.get_num_threads(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint. Raises: CheckpointError for other data or another job."""
        rows = self._rows
        check_resumable(state, self.job, rows.manifest, rows.selection, self.classes)
        self._image_normalize = self._restored(state["preprocess"])
        average = self._average
        misfit = f"the checkpoint does not fit network {self.job.model.name}"
        load_weights(unwrap(self._model), state["raw_model"] or state["model"], misfit)
        if average is not None:
            load_weights(average.module, state["model"], misfit)
            average.n_averaged.fill_(state["averaged"] or 0)
        check_optimizer_state(state["optimizer"], self._optimizer)
        self._optimizer.load_state_dict(state["optimizer"])
        self.history = list(state["history"])
        if len(state["rng"]) == self._world_size:
            restore_rng(state["rng"][self._rank])

    def evaluate(
        self, weights: dict[str, Any], preprocess: dict[str, Any] | None = None
    ) -> dict[str, Predictions] | None:
        """What these weights predict for every row of every split; None on ranks other than 0.

        `preprocess` is that of the weights' checkpoint; the trainer uses it from then on.
        """
        misfit = f"the checkpoint does not fit network {self.job.model.name}"
        load_weights(self.network, weights, misfit)
        if preprocess is not None:
            self._image_normalize = self._restored(preprocess)
        results = {}
        for split in ("train", "validation", "test"):
            mine = predict_shard(self.network, self.shard(split), self.normalize)
            results[split] = Predictions.join(gather(mine))
        return results if self._rank == 0 else None

    def _restored(self, preprocess: dict[str, Any]) -> Normalize:
        """A checkpoint's preprocessing on this rank's device."""
        return restore_normalize(self.job, preprocess, self._rows.shape).to(self._rows.device)

    def _validate(self, model: nn.Module) -> dict[str, float]:
        share_buffers(model)
        mine = predict_shard(model, self.shard("validation"), self.normalize)
        return validation_figures(mine, self._rows.device)


def check_resumable(
    state: Mapping[str, Any],
    job: Job,
    manifest: Manifest,
    selection: Selection,
    classes: Sequence[str],
) -> None:
    """Refuse a checkpoint of other data or of another job. Raises: CheckpointError."""
    digest = manifest.digest
    if state["dataset"]["digest"] != digest:
        raise CheckpointError(
            f"the checkpoint was trained on dataset digest {state['dataset']['digest'][:12]}, "
            f"not {digest[:12]}; a run can only resume on the data that it started with"
        )
    then = Job.model_validate(state["job"])
    if others := differences(then, job):
        raise CheckpointError(
            f"the checkpoint was trained on another selection ({'; '.join(others)}); a run can "
            "only resume with the rows and classes that it started with: submit a new run "
            "instead"
        )
    if missing := [r["epoch"] for r in state["history"] if not _is_number(r.get(job.metric))]:
        raise CheckpointError(
            f"the checkpoint's epoch {missing[0]} has no {job.metric}; use another checkpoint"
        )
    if (
        then != job
        or list(state["classes"]) != list(classes)
        or state["validation_sha256"] != selection.validation_sha256
    ):
        raise CheckpointError(
            "the checkpoint belongs to another job; a run can only resume with the job that it "
            "started with: submit a new run instead"
        )


def check_optimizer_state(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse a state that does not fit this optimizer's weights. Raises: CheckpointError."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    mine = [_kinds(group) for group in optimizer.state_dict()["param_groups"]]
    fits = [_kinds(group) for group in saved["param_groups"]] == mine
    for number, values in saved["state"].items():
        fits = fits and number < len(weights)
        shapes = ((), tuple(weights[number].shape)) if fits else ()
        for value in values.values():
            if isinstance(value, Tensor):
                fits = fits and tuple(value.shape) in shapes and value.is_floating_point()
            else:
                fits = fits and (value is None or _is_number(value))
    if not fits:
        raise CheckpointError(
            "the checkpoint's optimizer state does not fit this job and network; use another one"
        )


def _kinds(group: Mapping[str, Any]) -> dict[str, object]:
    """What has to be the same in two groups of parameters: all but the value of a number."""
    return {name: "number" if _is_number(value) else value for name, value in group.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
