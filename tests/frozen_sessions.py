"""Trainers that begin with the weights of a backbone that another trainer trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cifarray.backends.pretrained import find_weights
from cifarray.spec.job import Job
from cifarray.training.checkpoint import write_checkpoint
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, small_job

TINY = "timm/test_resnet"
"""timm's own for tests: 372,688 weights, with BatchNorm."""


@dataclass(frozen=True)
class Pretrained:
    """A dataset, and a checkpoint of a tiny backbone that was trained on its rows."""

    digits: Digits
    checkpoint: Path

    @staticmethod
    def on(digits: Digits, folder: Path, **sections: Any) -> "Pretrained":
        """Trained for an epoch."""
        torch.manual_seed(0)
        job = small_job(model={"name": TINY}, train={"epochs": 1}, **sections)
        trainer = digits.trainer(job)
        (record,) = trainer.records()
        write_checkpoint(folder, trainer.state(), record)
        return Pretrained(digits, folder)

    def job(self, *, model: dict[str, Any] | None = None, **sections: Any) -> Job:
        """The small job on the backbone's weights, with a hidden layer in its head."""
        given = {"name": TINY, "weights": str(self.checkpoint), "head": 8, **(model or {})}
        return small_job(model=given, **sections)

    def trainer(self, job: Job) -> Trainer:
        """The job on this rank, begun as `submit` and a worker begin it."""
        digits, folder = self.digits, self.checkpoint
        classes = len(digits.rows(job).selection.labels.classes)
        begun = find_weights(job, digits.store, digits.manifest.shape, classes, folder)
        return digits.trainer(job, weights=begun.path if begun else None)
