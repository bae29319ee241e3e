"""The training loop: plain PyTorch that knows nothing of Ray, sweeps or storage.

Shapes: N rows of a step on this rank, C channels, H and W the image's height and width, K classes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from cifarray.metrics import epoch_value, is_better
from cifarray.spec.job import EarlyStoppingSpec, TrainSpec
from cifarray.training.batches import TrainBatches
from cifarray.training.distributed import sum_over_ranks, world
from cifarray.training.losses import summed_loss

Record = dict[str, Any]


def fit(
    model: nn.Module,
    batches: TrainBatches,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    evaluate: Callable[[nn.Module], dict[str, float]],
    options: TrainSpec,
    *,
    history: Sequence[Record] = (),
    average: AveragedModel | None = None,
) -> Iterator[Record]:
    """Train and yield one record per epoch, right after it was evaluated.

    Args:
        model: the network, wrapped for DDP where there are several ranks.
        schedule: gives the factor of the learning rate at a step, counted from 0.
        evaluate: gives the epoch's validation figures of a network.
        history: records of the epochs that were trained before; training goes on behind them.
        average: an exponential moving average of the weights, evaluated in the model's place.
    """
    records = list(history)
    step = records[-1]["step"] if records else 0
    last_step = total_steps(options, batches.steps_per_epoch)
    base_lr = optimizer.defaults["lr"]

    while step < last_step and not should_stop(records, options.early_stopping):
        epoch = len(records) + 1
        model.train()
        running = RunningFigures(batches.device)
        started = time.perf_counter()
        for batch in islice(batches.epoch(epoch), last_step - step):
            lr = base_lr * schedule(step)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            with autocast(options, batch.images_NCHW):
                logits_NK = model(batch.images_NCHW)
            loss = summed_loss(logits_NK, batch, options.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            (loss * batch.scale).backward()
            if options.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), options.clip_grad_norm)
            optimizer.step()
            if average is not None:
                average.update_parameters(unwrap(model))
            running.add(loss, logits_NK, batch.labels_N)
            step += 1
        figures = running.over_ranks()  # waits for the device
        step_s = time.perf_counter() - started
        record: Record = {
            "epoch": epoch,
            "step": step,
            "lr": lr,
            **figures,
            **evaluate(average.module if average is not None else unwrap(model)),
            "step_s": step_s,
            "epoch_s": time.perf_counter() - started,
            "images_per_s": figures["train_rows"] / step_s,
            "world_size": world()[1],
            "ended_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        records.append(record)
        yield record
        if not math.isfinite(record["train.running_loss"]):
            return


def total_steps(options: TrainSpec, steps_per_epoch: int) -> int:
    """The number of steps at which training ends."""
    by_epochs = math.inf if options.epochs is None else options.epochs * steps_per_epoch
    return int(min(by_epochs, math.inf if options.steps is None else options.steps))


def should_stop(records: Sequence[Record], rule: EarlyStoppingSpec | None) -> bool:
    """Whether the metric has gone `patience_epochs` epochs without a better value."""
    if rule is None:
        return False
    best, best_at = None, -1
    for at, record in enumerate(records):
        value = epoch_value(record, rule.metric)
        if value is None:
            continue
        if best is None or is_better(rule.metric, value, best, by=rule.min_delta):
            best, best_at = value, at
    return len(records) - 1 - best_at >= rule.patience_epochs


def autocast(options: TrainSpec, images: Tensor) -> torch.autocast:
    """bf16 autocast where the job asks for it."""
    return torch.autocast(
        images.device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16"
    )


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside DDP's and torch.compile's wrappers."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


class RunningFigures:
    """Loss and top1 over an epoch's own, augmented batches, kept on the device until its end.

    Of a mixed image top1 asks for the label of the larger share.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        """Count a batch, given the sum of its losses."""
        correct = (logits_NK.argmax(1) == labels_N).sum()
        rows = torch.full_like(correct, len(labels_N))
        self._sums += torch.stack([loss.detach().double(), correct.double(), rows.double()])

    def over_ranks(self) -> dict[str, float]:
        """The exact means over every rank's rows."""
        loss, correct, rows = sum_over_ranks(self._sums).tolist()
        return {
            "train_rows": int(rows),
            "train.running_loss": loss / rows,
            "train.running_top1": correct / rows,
        }
