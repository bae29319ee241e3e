"""Inputs of reports as training hands them over: made up, seeded, of any number of classes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cifarray.report.inputs import Mistake, ReportDataset, ReportInputs
from cifarray.report.network import Block, Layer
from cifarray.report.scores import Predictions
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunSpec

Picture = Callable[[int, int], Any]
"""(row_id, label) -> uint8 image of height, width, channels."""

SPACE = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "model.dropout": {"uniform": [0.0, 0.7]},
    "optimizer.name": {"choice": ["sgd", "adam", "adamw", "rmsprop"]},
}


LAYERS = (
    Layer("features.0", "Conv2d", "3x3", (32, 8, 8), 320, 320),
    Layer("features.1", "ReLU", "", (32, 8, 8), 0, 0),
    Layer("features.2", "MaxPool2d", "2x2", (32, 4, 4), 0, 0),
    Layer(
        "blocks.0.conv1", "Conv2d", "3x3", (64, 4, 4), 9216, 0, Block("blocks.0", "B", (64, 4, 4))
    ),
    Layer(
        "blocks.0.conv2",
        "Conv2d",
        "3x3",
        (64, 4, 4),
        9216,
        9216,
        Block("blocks.0", "B", (64, 4, 4)),
    ),
    Layer("classifier", "Linear", "", (10,), 650, 650),
)


def predictions(num_classes: int, rows: int, error_rate: float, seed: int = 0) -> Predictions:
    """Return predictions that are wrong at about the given rate, mostly by a class or two."""
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % num_classes
    difficulty = draw.uniform(0.2, 1.8, num_classes)[labels] * error_rate
    near = draw.choice([-2, -1, 1, 2], rows, p=[0.15, 0.35, 0.35, 0.15])
    anywhere = draw.integers(0, num_classes, rows)
    wrong = np.where(draw.random(rows) < 0.8, (labels + near) % num_classes, anywhere)
    guesses = np.where(draw.random(rows) < difficulty, wrong, labels)
    probabilities = np.clip(draw.beta(6, 2, rows), 1 / num_classes, 1)
    hits = (guesses == labels) | (draw.random(rows) < 0.7)
    losses = np.where(guesses == labels, -np.log(probabilities), 2 - np.log(1 - probabilities / 2))
    return Predictions(np.arange(rows), labels, guesses, probabilities, hits, losses)


def history(epochs: int, reach: float = 0.9, seed: int = 0) -> list[dict[str, Any]]:
    """Return one record per epoch of a run whose validation top-1 approaches `reach`."""
    draw = np.random.default_rng(seed)
    records = []
    for epoch in range(1, epochs + 1):
        top1 = reach * (1 - math.exp(-epoch / max(2.0, epochs / 4))) + draw.normal(0, 0.006)
        records.append(
            {
                "epoch": epoch,
                "step": 20 * epoch,
                "lr": 0.05 * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2,
                "train.running_loss": 2.2 * (1 - top1) + 0.12,
                "train.running_top1": top1 - 0.03,
                "validation.loss": 2.1 * (1 - top1) + 0.15 + draw.normal(0, 0.01),
                "validation.top1": top1,
                "validation.top5": min(1.0, top1 + 0.08),
                "epoch_s": 1.9,
                "step_s": 1.5,
                "train_rows": 1293,
                "images_per_s": 862.0,
                "world_size": 2,
                "ended_at": "2026-03-01T12:00:00+00:00",
                "data_wait": 0.07,
            }
        )
    return records


def dataset(num_classes: int, superclasses: int = 0, names: Sequence[str] = ()) -> ReportDataset:
    """Return a dataset whose superclasses do not lie in the order of its labels."""
    coarse = (
        tuple((7 * label) % superclasses for label in range(num_classes)) if superclasses else ()
    )
    classes = tuple(names) or tuple(f"class {label}" for label in range(num_classes))
    return ReportDataset(
        name="cifar100" if superclasses else "digits",
        title="CIFAR-100" if superclasses else "Handwritten digits",
        digest="3f1c" * 16,
        classes=classes,
        coarse_classes=tuple(f"superclass {number}" for number in range(superclasses)),
        fine_to_coarse=coarse,
        left_out=left_out(classes[0]) if superclasses or names else (),
    )


def left_out(example: str) -> tuple[dict[str, Any], ...]:
    """Return what a dataset's source holds and it does not; `example` is a name from there."""
    return (
        {
            "kind": "image",
            "reason": "unreadable",
            "split": "train",
            "count": 1234,
            "classes": 3,
            "example": example,
        },
        {
            "kind": "litter",
            "reason": example,
            "split": None,
            "count": 1,
            "classes": 0,
            "example": "Thumbs.db",
        },
    )


def run_spec(kind: str = "train", name: str = "train-digits", **fields: Any) -> RunSpec:
    """Return the record of a run of either kind; `fields` go into its job."""
    sweep = {"space": SPACE, "trials": 20, "scheduler": {"name": "asha"}}
    job = {
        "name": name,
        "kind": kind,
        "dataset": {"name": "digits"},
        "model": {"name": "cnn3"},
        "augment": {"padded_crop": {"padding": 1}},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "train": {"epochs": 30},
        "sweep": sweep if kind == "tune" else None,
        **fields,
    }
    return RunSpec(
        run_id=f"{name}-260301-120000-3f1c",
        job=Job.model_validate(job),
        profile=Profile(name="local", kind="local"),
        world_size=2,
        dataset_digest="3f1c" * 16,
        validation_rows=144,
        validation_sha256="9a0b" * 16,
        submitted_at="2026-03-01T12:00:00+00:00",
        versions={"python": "3.12.3", "cifarray": "0.1.0", "torch": "2.15.0", "ray": "2.60.0"},
    )


def inputs(
    num_classes: int = 10,
    rows: int = 360,
    epochs: int = 12,
    superclasses: int = 0,
    error_rate: float = 0.05,
    names: Sequence[str] = (),
    picture: Picture | None = None,
    **changes: Any,
) -> ReportInputs:
    """Return what a training run hands over; `changes` replace fields of the record."""
    test = predictions(num_classes, rows, error_rate, seed=3)
    records = history(epochs, 1 - error_rate)
    values: dict[str, Any] = {
        "spec": run_spec(),
        "dataset": dataset(num_classes, superclasses, names),
        "model_parameters": 1_193_636,
        "world_size": 2,
        "threads": 1,
        "hardware": {"cpu": "Xeon, 2 cores", "cores": 2, "memory_bytes": 8 << 30, "gpus": 0},
        "images_per_s": 862.0 if epochs > 1 else None,
        "duration_s": 73.4,
        "history": records,
        "predictions": {
            "train": predictions(num_classes, 4 * rows, error_rate / 4, seed=1),
            "validation": predictions(num_classes, rows // 2, error_rate, seed=2),
            "test": test,
        },
        "best_epoch": epochs,
        "input_shape": (8, 8, 1),
        "layers": LAYERS,
        "mistakes": mistakes(test, 24, picture or gradient),
    }
    return ReportInputs(**values | changes)


def sweep_inputs(num_trials: int = 20, epochs: int = 9, **changes: Any) -> ReportInputs:
    """Return what a sweep hands over: trials that ended, were stopped early, or failed."""
    trials = [trial(number, epochs) for number in range(num_trials)]
    best = max(trials, key=lambda t: (t["validation.top1"] or 0.0, t["epochs"]))
    defaults = {
        "spec": run_spec("tune", "tune-digits"),
        "trials": trials,
        "best_trial_id": best["id"],
        "history": best["history"],
        "best_epoch": best["epochs"],
    }
    return inputs(**defaults | changes)


def trial(number: int, epochs: int) -> dict[str, Any]:
    """Return a trial; every seventh fails, and those of a bad learning rate are stopped early."""
    draw = np.random.default_rng(number)
    params: Mapping[str, Any] = {
        "optimizer.lr": float(10 ** draw.uniform(-4, -1)),
        "model.dropout": float(draw.uniform(0, 0.7)),
        "optimizer.name": ["sgd", "adam", "adamw", "rmsprop"][draw.integers(4)],
    }
    distance = abs(math.log10(params["optimizer.lr"]) + 2.3) + params["model.dropout"] / 3
    reach = max(0.1, 0.98 - 0.25 * distance)
    common = {"id": f"{number:05d}", "params": params, "error": None}
    if number % 7 == 5:
        error = "RuntimeError: the loss is not finite (nan) at step 12; lower optimizer.lr"
        return common | {
            "epochs": 0, "state": "failed", "validation.top1": None, "history": [], "error": error
        }  # fmt: skip
    stopped = distance > 0.7
    records = history(epochs, reach, seed=number)[: 3 if stopped else epochs]
    return common | {
        "epochs": len(records),
        "state": "stopped early" if stopped else "finished",
        "validation.top1": max(record["validation.top1"] for record in records),
        "history": records,
    }


def mistakes(test: Predictions, count: int, picture: Picture) -> list[Mistake]:
    """Return the most confident mistakes with pictures."""
    return [
        Mistake(
            row_id=int(test.row_ids[at]),
            label=int(test.labels[at]),
            prediction=int(test.predictions[at]),
            probability=float(test.probabilities[at]),
            image=picture(int(test.row_ids[at]), int(test.labels[at])),
        )
        for at in test.most_confident_mistakes(count)
    ]


def gradient(row_id: int, label: int) -> Any:
    """Return a small gray picture."""
    del label
    return (np.add.outer(np.arange(8), np.arange(8)) * 16 + row_id % 16).astype(np.uint8)[..., None]
