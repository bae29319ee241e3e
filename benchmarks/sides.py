"""One training of cnn3 on CIFAR-100's coarse labels in one of three ways, timed; prints JSON.

    python -m benchmarks.sides {cifarray,plain,loader} --archive FILE [--workers N]

All do equal work: network, batch size, float32, crop and flip, SGD, threads. `plain` is the script
that one would write: uint8 tensors in memory, augmented in batches. `loader` is the dataset and the
transforms of torchvision behind a DataLoader, whose workers come on top of --threads. Both in the
usual memory layout, or with --channels-last in the one that cifarray takes by itself.

Shapes: N rows, C channels, H and W an image's height and width.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

EPOCHS, BATCH, PADDING = 4, 256, 4
LR, MOMENTUM = 0.05, 0.9
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
Figures = dict[str, float]


def cifarray_side(archive: Path, threads: int, seed: int) -> Figures:
    """Our session, as a Train worker or a trial runs it, with the reading that Ray's tasks do."""
    from cifarray.data.ingest import prepare
    from cifarray.data.ray_dataset import plan_reads, read_group
    from cifarray.data.split import select_rows
    from cifarray.spec.job import Job
    from cifarray.store import Store
    from cifarray.training.rows import RowSource
    from cifarray.training.trainer import Trainer

    job = Job.model_validate(
        {
            "name": "benchmark",
            "kind": "train",
            "dataset": {"name": "cifar100", "labels": "coarse"},
            "validation": {"fraction": 0.02},
            "augment": {"horizontal_flip": {"p": 0.5}, "padded_crop": {"padding": PADDING}},
            "model": {"name": "cnn3"},
            "optimizer": {"name": "sgd", "lr": LR, "momentum": MOMENTUM},
            "train": {"epochs": EPOCHS, "global_batch_size": BATCH},
            "seed": seed,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        manifest, _ = prepare(store, "cifar100", str(archive))

        def read(split: str, positions: Any, column: str, seed: int | None) -> Iterator[Any]:
            for group in plan_reads(manifest, split, positions):
                yield read_group(store, group, ("image", column, "row_id"))

        torch.set_num_threads(threads)
        rows = RowSource(
            manifest, select_rows(store, manifest, job), read, torch.device("cpu"), 1 << 30
        )
        session = Trainer(job, rows)
        records = list(session.records())
        weights = session.state()["model"]
        results = session.evaluate(weights)
    assert results is not None
    later = records[1:]
    return {
        "images_per_s": sum(r["train_rows"] for r in later) / sum(r["step_s"] for r in later),
        "test_top1": results["test"].top1,
    }


def plain_side(archive: Path, threads: int, seed: int, layout: torch.memory_format) -> Figures:
    """A plain script: tensors in memory, random order, augmentation of whole batches."""
    torch.set_num_threads(threads)
    images, labels = load_split(archive, "train")
    keep = len(images) - round(0.02 * len(images))  # as many rows as the others train on
    images, labels = images[:keep], labels[:keep]

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(images)).split(BATCH):
            yield normalize(crop(flip(images[index]))), labels[index]

    return timed_training(epoch, len(images), archive, seed, layout)


def loader_side(
    archive: Path, threads: int, seed: int, layout: torch.memory_format, workers: int
) -> Figures:
    """The dataset and transforms of torchvision behind a DataLoader with persistent workers."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(archive, folder)

        class AnyRows(datasets.CIFAR100):  # type: ignore[misc]
            """The published layout with other rows than published."""

            def _check_integrity(self) -> bool:
                return True

            def _load_meta(self) -> None:
                self.classes: list[str] = []

        steps = [
            transforms.RandomCrop(32, padding=PADDING),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        dataset = AnyRows(folder, train=True, transform=transforms.Compose(steps))
        dataset.targets = load_split(archive, "train")[1].tolist()
        keep = len(dataset) - round(0.02 * len(dataset))
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            Subset(dataset, range(keep)),
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        return timed_training(partial(iter, loader), keep, archive, seed, layout)


def timed_training(
    epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    rows: int,
    archive: Path,
    seed: int,
    layout: torch.memory_format,
) -> Figures:
    """The textbook loop; the first epoch warms up and is not timed."""
    from cifarray.models.registry import build_model
    from cifarray.spec.job import ModelSpec

    torch.manual_seed(seed)
    model = build_model(ModelSpec(name="cnn3"), 20, (32, 32, 3)).to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    seconds = 0.0
    for number in range(EPOCHS):
        model.train()
        started = time.perf_counter()
        for images_NCHW, labels_N in epoch():
            images_NCHW = images_NCHW.contiguous(memory_format=layout)
            loss = cross_entropy(model(images_NCHW), labels_N)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if number:
            seconds += time.perf_counter() - started
    model.eval()
    images, labels = load_split(archive, "test")
    with torch.no_grad():
        hits = sum(
            int((model(normalize(part)).argmax(1) == truth).sum())
            for part, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True)
        )
    return {"images_per_s": rows * (EPOCHS - 1) / seconds, "test_top1": hits / len(labels)}


def flip(images_NCHW: Tensor) -> Tensor:
    """Mirror each image with probability one half."""
    mirrored_N = torch.rand(len(images_NCHW)) < 0.5
    return torch.where(mirrored_N[:, None, None, None], images_NCHW.flip(3), images_NCHW)


def crop(images_NCHW: Tensor) -> Tensor:
    """Cut each zero-padded image at a place of its own, by one indexing operation."""
    n, _, height, width = images_NCHW.shape
    padded = pad(images_NCHW, (PADDING,) * 4)
    top_N, left_N = torch.randint(2 * PADDING + 1, (2, n))
    rows_NH = top_N[:, None] + torch.arange(height)
    columns_NW = left_N[:, None] + torch.arange(width)
    numbers_N = torch.arange(n)[:, None, None]
    cut_NHWC = padded.permute(0, 2, 3, 1)[numbers_N, rows_NH[:, :, None], columns_NW[:, None, :]]
    return cut_NHWC.permute(0, 3, 1, 2)


def normalize(images_NCHW: Tensor) -> Tensor:
    """uint8 to floats, standardized per channel."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return ((images_NCHW.float() / 255) - mean) / std


def load_split(archive: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images as uint8 NCHW and coarse labels, through cifarray's own safe reader."""
    from cifarray.data.ingest import prepare
    from cifarray.data.parquet import decoded_shape, image_array, read_columns
    from cifarray.store import Store

    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        manifest, _ = prepare(store, "cifar100", str(archive))
        table = read_columns(store, manifest, split, ["row_id", "image", "coarse_label"])
        order = np.argsort(table["row_id"].to_numpy())
        images = image_array(table["image"], decoded_shape(manifest, None))[order]
        labels = table["coarse_label"].to_numpy().astype(np.int64)[order]
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("cifarray", "plain", "loader"))
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader")
    parser.add_argument("--channels-last", action="store_true", help="in plain and loader")
    options = parser.parse_args()
    archive, threads, seed = options.archive, options.threads, options.seed
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    if options.side == "loader":
        figures = loader_side(archive, threads, seed, layout, options.workers)
    elif options.side == "plain":
        figures = plain_side(archive, threads, seed, layout)
    else:
        figures = cifarray_side(archive, threads, seed)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
