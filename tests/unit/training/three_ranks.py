"""What one, two and three ranks do with the same rows; run once, in three processes, for all tests.

`python -m tests.unit.training.three_ranks STORE FOLDER` imports torch once and forks. Each rank of
each world leaves what it saw in FOLDER/<world_size>-<rank>.pt; STORE holds digits.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimizer imports it: better once than in each rank
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifarray.data.augment import Augment
from cifarray.data.augment.normalize import Normalize
from cifarray.data.manifest import load_manifest
from cifarray.data.shard import ResidentShard, Rows
from cifarray.errors import NoGpuError
from cifarray.models.registry import build_model
from cifarray.spec.augment import AugmentSpec, PreprocessSpec
from cifarray.spec.job import ModelSpec, TrainSpec
from cifarray.spec.profile import Profile
from cifarray.store import Store
from cifarray.training.batches import StepPlan, TrainBatches
from cifarray.training.checkpoint import read_state, write_checkpoint
from cifarray.training.distributed import from_rank_0, gather, share_buffers, sum_over_ranks, world
from cifarray.training.loop import fit
from cifarray.training.worker import refuse_without_gpus
from tests.digit_sessions import CPU, Digits, same_weights, small_job, weights_of, without_times

WORLDS = (2, 1, 3)
"""In this order: what two ranks train, the others evaluate too."""
EVALUATED = {
    "cnn3": {"dataset": {"rows": 101}},
    "resnet18": {"dataset": {"rows": 101}, "model": {"name": "resnet18"}, "train": {"epochs": 1}},
}
"""Jobs whose checkpoints every world evaluates; 81 train, 20 validation and 360 test rows."""
SHARDS = {
    "equal": {1: [42], 2: [21, 21], 3: [14, 14, 14]},
    "one row apart": {1: [41], 2: [21, 20], 3: [14, 14, 13]},
    "far apart": {1: [40], 2: [7, 33], 3: [5, 11, 24]},
}
"""Rows that each rank holds in the comparisons of gradients."""


def random_rows(count: int) -> Rows:
    """Rows that are the same in every process."""
    draws = torch.Generator().manual_seed(7)
    images_NCHW = torch.randint(0, 256, (count, 1, 8, 8), generator=draws, dtype=torch.uint8)
    labels_N = torch.randint(0, 10, (count,), generator=draws)
    return Rows(images_NCHW, labels_N, torch.arange(count))


def exact_network() -> nn.Module:
    """cnn3 without dropout in float64, the same in every process."""
    torch.manual_seed(3)
    spec = ModelSpec(name="cnn3", dropouts=(0.0, 0.0, 0.0))
    return build_model(spec, 10, (8, 8, 1)).double()


class RecordingSGD(torch.optim.SGD):
    """SGD that keeps the gradients of every step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.1)
        self.seen: list[list[Tensor]] = []

    def step(self, closure: Any = None) -> None:
        """Keep the gradients, then do SGD's step."""
        (group,) = self.param_groups
        self.seen.append([parameter.grad.clone() for parameter in group["params"]])
        super().step(closure)


def gradients(shard_rows: Sequence[int], global_batch_size: int, epochs: int) -> dict[str, Any]:
    """Train through `fit`; this rank's batches, and the gradients and weights that came of them."""
    rank, _ = world()
    first = sum(shard_rows[:rank])
    mine = random_rows(sum(shard_rows)).take(slice(first, first + shard_rows[rank]))
    batches = TrainBatches(
        shard=ResidentShard(mine, CPU),
        plan=StepPlan.make(shard_rows, global_batch_size, rank),
        augment=Augment(AugmentSpec()),
        normalize=Normalize(PreprocessSpec(), [0.5], [0.3]).double(),
        seed=5,
        rank=rank,
    )
    network = exact_network()
    model = DistributedDataParallel(network) if dist.is_initialized() else network
    optimizer = RecordingSGD(network)
    options = TrainSpec(epochs=epochs, global_batch_size=global_batch_size, label_smoothing=0.1)
    records = list(fit(model, batches, optimizer, lambda step: 1.0, lambda m: {}, options))
    epochs_of_batches = [list(batches.epoch(epoch + 1)) for epoch in range(epochs)]
    return {
        "batches": [(b.images_NCHW, b.labels_N) for steps in epochs_of_batches for b in steps],
        "gradients": optimizer.seen,
        "weights": list(network.state_dict().values()),
        "records": [without_times(record) for record in records],
    }


def evaluation(digits: Digits, folder: Path, name: str) -> dict[str, Any]:
    """Evaluate a job's checkpoint on all ranks; two ranks train it first."""
    trainer = digits.trainer(small_job(**EVALUATED[name]))
    rank, world_size = world()
    if world_size == 2:
        *_, record = trainer.records()
        state = trainer.state()
        if rank == 0:
            write_checkpoint(folder / name, state, record)
    predictions = trainer.evaluate(read_state(from_rank_0(folder / name))["model"])
    tables = predictions and {split: rows.to_table() for split, rows in predictions.items()}
    return {"history": trainer.history, "predictions": tables}


def resumption(digits: Digits, folder: Path) -> dict[str, Any]:
    """Two epochs at once, and one epoch, a checkpoint and another epoch in a new trainer."""
    job = small_job(
        dataset={"rows": 101},
        augment={"padded_crop": {"padding": 1}, "horizontal_flip": {}},
        train={"ema_decay": 0.9},
    )
    whole = digits.trainer(job)
    records = [without_times(record) for record in whole.records()]
    expected = weights_of(whole)

    killed = digits.trainer(job)
    record = next(killed.records())
    state = killed.state()
    if world()[0] == 0:
        write_checkpoint(folder / "cut", state, record)
    resumed = digits.trainer(job)
    resumed.restore(read_state(from_rank_0(folder / "cut")))
    rest = [without_times(record) for record in resumed.records()]
    return {"same": same_weights(weights_of(resumed), expected), "records": records, "rest": rest}


def whitening(digits: Digits) -> dict[str, Any]:
    """What every rank whitens by, fitted on rows of which each rank holds some."""
    job = small_job(preprocess={"normalize": "whitening", "epsilon": 0.01}, train={"steps": 1})
    trainer = digits.trainer(job)
    list(trainer.records())
    found: dict[str, Any] = trainer.state()["preprocess"]["whitening"]
    return found


def features(digits: Digits, folder: Path) -> dict[str, Any]:
    """The head of a frozen backbone trained on images, and on features that are then in a cache."""
    world_size = world()[1]
    torch.manual_seed(0)
    spec = ModelSpec(name="timm/test_resnet")
    weights = build_model(spec, 10, (8, 8, 1)).state_dict()
    path = folder / f"{world()[0]}-of-{world_size}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    records = {}
    for name, cached in (("images", None), ("features", "cached"), ("cache", "cached")):
        model = {"name": spec.name, "weights": "given", "frozen": True, "features": cached}
        job = small_job(dataset={"rows": 101}, model=model, train={"ema_decay": 0.9})
        trainer = digits.trainer(job, weights=path)
        records[name] = [without_times(record) for record in trainer.records()]
    return records


def drift() -> dict[str, Any]:
    """A network with BatchNorm after a step on other rows per rank, before and after sharing."""
    rank, _ = world()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    model = DistributedDataParallel(network) if dist.is_initialized() else network
    rows = random_rows(60).take(slice(20 * rank, 20 * rank + 20))
    model(rows.images_NCHW.float()).sum().backward()
    before = [buffer.clone() for buffer in network.buffers()]
    share_buffers(network)
    return {"before": before, "after": list(network.buffers())}


def reporter() -> dict[str, Any]:
    """What the ranks tell each other."""
    rank, world_size = world()
    return {
        "world": (rank, world_size),
        "sum": sum_over_ranks(torch.tensor([1.0, float(rank)])).tolist(),
        "gathered": gather(f"rank {rank}"),
        "from 0": from_rank_0(f"rank {rank}"),
    }


def refusal(sees_a_gpu: bool) -> str:
    """What this rank says when it was promised a GPU and sees one or none."""
    try:
        refuse_without_gpus(Profile(name="p", kind="local", gpus_per_worker=1), sees_a_gpu)
    except NoGpuError as error:
        return str(error)
    return ""


def work(digits: Digits, folder: Path) -> Iterator[tuple[str, Any]]:
    """Everything that a rank of a world does."""
    rank, world_size = world()
    yield "talk", reporter()
    yield "refusal", refusal(sees_a_gpu=rank < world_size - 1)
    yield "drift", drift()
    yield "whitening", whitening(digits)
    yield "features", features(digits, folder)
    for name, shards in SHARDS.items():
        rows = shards[world_size]
        yield f"whole batches, {name}", gradients(rows, sum(rows), epochs=3)
        yield f"batches of 16, {name}", gradients(rows, 16, epochs=2)
    for name in EVALUATED:
        yield f"evaluation of {name}", evaluation(digits, folder, name)
    if world_size == 2:
        yield "resumption", resumption(digits, folder)


def run_rank(rank: int, store: Store, folder: Path) -> None:
    """Take part in every world that has this rank."""
    torch.set_num_threads(1)
    digits = Digits(store, load_manifest(store, "digits"))
    for world_size in WORLDS:
        if rank >= world_size:
            continue
        if world_size > 1:
            rendezvous = f"file://{folder}/rendezvous-{world_size}"
            dist.init_process_group(
                "gloo", init_method=rendezvous, rank=rank, world_size=world_size
            )
        torch.save(dict(work(digits, folder)), folder / f"{world_size}-{rank}.pt")
        if world_size > 1:
            dist.destroy_process_group()


def main(store: Store, folder: Path) -> int:
    """Fork three ranks; the number of those that failed."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=run_rank, args=(rank, store, folder)) for rank in range(max(WORLDS))
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return sum(process.exitcode != 0 for process in ranks)


if __name__ == "__main__":
    sys.exit(main(Store.open(sys.argv[1]), Path(sys.argv[2])))
