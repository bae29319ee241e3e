"""The loop does what a hand-written one does, and each of its options what torch's own does."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import cifarray.training.loop
from cifarray.data.augment import Augment
from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import ResidentShard, Rows
from cifarray.spec.augment import AugmentSpec, PreprocessSpec
from cifarray.spec.job import TrainSpec
from cifarray.training.batches import StepPlan, TrainBatches
from cifarray.training.loop import fit, total_steps, unwrap
from tests.digit_sessions import CPU
from tests.golden_files import Golden

ROWS, BATCH = 48, 16


class Small(nn.Module):
    """A convolution and a dense layer that remember in which mode they were called."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3, padding=1)
        self.dense = nn.Linear(8, 10)
        self.modes: list[bool] = []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.modes.append(self.training)
        return self.dense(self.convolution(images_NCHW).relu().mean((2, 3)))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small()


@pytest.fixture
def batches() -> TrainBatches:
    draws = torch.Generator().manual_seed(1)
    images_NCHW = torch.randint(0, 256, (ROWS, 1, 8, 8), generator=draws, dtype=torch.uint8)
    rows = Rows(images_NCHW, torch.arange(ROWS) % 10, torch.arange(ROWS))
    return TrainBatches(
        shard=ResidentShard(rows, CPU),
        plan=StepPlan.make([ROWS], BATCH, 0),
        augment=Augment(AugmentSpec()),
        normalize=Normalize(PreprocessSpec(), [0.5], [0.3]),
        seed=2,
        rank=0,
    )


def figures(model: nn.Module) -> dict[str, float]:
    return {"validation.loss": 1.0, "validation.top1": 0.5}


def train(
    model: nn.Module,
    batches: TrainBatches,
    *,
    evaluate: Callable[[nn.Module], dict[str, float]] = figures,
    history: list[dict[str, Any]] | None = None,
    average: AveragedModel | None = None,
    lr: float = 0.1,
    **options: Any,
) -> list[dict[str, Any]]:
    """The records of a training by SGD with momentum and a falling learning rate."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    spec = TrainSpec.model_validate({"global_batch_size": BATCH, **options})
    before: dict[str, Any] = {"history": history or (), "average": average}
    return list(fit(model, batches, optimizer, falling, evaluate, spec, **before))


def falling(step: int) -> float:
    return 1 / (step + 1)


def by_hand(
    model: nn.Module, batches: TrainBatches, epochs: int, smoothing: float = 0.0
) -> Iterator[tuple[int, float, int]]:
    """A plain loop; (epoch, sum of the batch's losses, correct rows) of each step, after it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = 0
    for epoch in range(1, epochs + 1):
        for batch in batches.epoch(epoch):
            optimizer.param_groups[0]["lr"] = 0.1 * falling(step)
            logits_NK = model(batch.images_NCHW)
            loss = cross_entropy(logits_NK, batch.labels_N, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            correct = int((logits_NK.argmax(1) == batch.labels_N).sum())
            yield epoch, float(loss.detach()) * len(batch.labels_N), correct


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for ours, theirs in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_loop_fits_on_three_screens():
    source = Path(cifarray.training.loop.__file__)
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_weights_are_those_of_a_loop_written_by_hand(model: Small, batches: TrainBatches):
    other = copy.deepcopy(model)
    train(model, batches, epochs=3)
    assert len(list(by_hand(other, batches, 3))) == 9
    assert_same(model, other)


def test_running_figures_are_the_means_over_the_epochs_own_batches(
    model: Small, batches: TrainBatches
):
    steps = list(by_hand(copy.deepcopy(model), batches, 2))
    for record in train(model, batches, epochs=2):
        mine = [step for step in steps if step[0] == record["epoch"]]
        assert record["train_rows"] == ROWS
        assert record["train.running_top1"] == sum(correct for _, _, correct in mine) / ROWS
        loss = sum(loss for _, loss, _ in mine) / ROWS
        assert record["train.running_loss"] == pytest.approx(loss, rel=1e-5)


def test_label_smoothing_is_torchs(model: Small, batches: TrainBatches):
    other = copy.deepcopy(model)
    (record,) = train(model, batches, epochs=1, label_smoothing=0.2)
    loss = sum(loss for _, loss, _ in by_hand(other, batches, 1, smoothing=0.2)) / ROWS
    assert record["train.running_loss"] == pytest.approx(loss, rel=1e-5)
    assert_same(model, other)


def test_records_say_what_an_epoch_was(model: Small, batches: TrainBatches):
    records = train(model, batches, epochs=2)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["step"] for record in records] == [3, 6]
    assert [record["lr"] for record in records] == [0.1 * falling(2), 0.1 * falling(5)]
    assert [record["validation.top1"] for record in records] == [0.5, 0.5]
    for record in records:
        assert record["world_size"] == 1
        assert 0 < record["step_s"] <= record["epoch_s"]
        assert record["images_per_s"] == pytest.approx(ROWS / record["step_s"])
        assert record["ended_at"].endswith("+00:00")


def test_training_goes_on_in_train_mode_after_an_evaluation(model: Small, batches: TrainBatches):
    def evaluate(network: nn.Module) -> dict[str, float]:
        network.eval()
        return figures(network)

    train(model, batches, evaluate=evaluate, epochs=2)
    assert model.modes == [True] * 6


@pytest.mark.parametrize(
    ("options", "steps_of_epochs"),
    [
        ({"epochs": 2}, [3, 6]),
        ({"steps": 3}, [3]),
        ({"steps": 4}, [3, 4]),
        ({"epochs": 2, "steps": 4}, [3, 4]),
        ({"epochs": 1, "steps": 9}, [3]),
    ],
)
def test_training_ends_after_its_epochs_or_its_steps_whichever_is_first(
    model: Small, batches: TrainBatches, options: dict[str, int], steps_of_epochs: list[int]
):
    records = train(model, batches, **options)
    assert [record["step"] for record in records] == steps_of_epochs
    assert total_steps(TrainSpec.model_validate(options), 3) == steps_of_epochs[-1]


def test_an_epoch_that_steps_cut_short_counts_the_rows_that_it_saw(
    model: Small, batches: TrainBatches
):
    assert [record["train_rows"] for record in train(model, batches, steps=4)] == [ROWS, BATCH]


def test_training_goes_on_behind_its_history(model: Small, batches: TrainBatches):
    first = train(model, batches, epochs=2)
    (third,) = train(model, batches, epochs=3, history=first)
    assert (third["epoch"], third["step"]) == (3, 9)
    assert third["lr"] == 0.1 * falling(8)
    assert train(model, batches, epochs=3, history=[*first, third]) == []


@pytest.mark.parametrize("norm", [1e-3, 1e-2])
def test_clipping_bounds_every_update(model: Small, batches: TrainBatches, norm: float):
    def update(clip: float | None) -> float:
        trained = copy.deepcopy(model)
        train(trained, batches, steps=1, lr=1.0, clip_grad_norm=clip)
        changes = zip(trained.parameters(), model.parameters(), strict=True)
        return math.sqrt(sum(float((new - old).detach().square().sum()) for new, old in changes))

    assert update(None) > norm * 1.5
    assert update(norm) == pytest.approx(norm, rel=1e-3)


def test_clipping_leaves_smaller_gradients_alone(model: Small, batches: TrainBatches):
    other = copy.deepcopy(model)
    train(model, batches, epochs=1, clip_grad_norm=1e6)
    train(other, batches, epochs=1)
    assert_same(model, other)


def test_the_average_is_the_exponential_one_and_is_what_is_evaluated(
    model: Small, batches: TrainBatches
):
    decay = 0.7
    other = copy.deepcopy(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    judged: list[nn.Module] = []

    def evaluate(network: nn.Module) -> dict[str, float]:
        judged.append(network)
        return figures(network)

    train(model, batches, evaluate=evaluate, epochs=2, ema_decay=decay, average=average)
    expected: list[Tensor] = []
    for _ in by_hand(other, batches, 2):
        now = [parameter.detach().clone() for parameter in other.parameters()]
        pairs = zip(expected, now, strict=True)
        expected = [decay * old + (1 - decay) * new for old, new in pairs] if expected else now
    for ours, theirs in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert judged == [average.module] * 2
    assert_same(model, other)


def test_bf16_computes_in_bf16_and_keeps_float32_weights(model: Small, batches: TrainBatches):
    seen: list[torch.dtype] = []
    model.dense.register_forward_hook(lambda module, given, logits_NK: seen.append(logits_NK.dtype))
    full = copy.deepcopy(model)
    (low,) = train(model, batches, epochs=1, precision="bf16")
    assert seen == [torch.bfloat16] * 3
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    (high,) = train(full, batches, epochs=1)
    assert low["train.running_loss"] != high["train.running_loss"]
    assert low["train.running_loss"] == pytest.approx(high["train.running_loss"], rel=0.02)


def test_a_loss_that_is_no_number_ends_the_training_with_its_record(
    model: Small, batches: TrainBatches
):
    records = train(model, batches, epochs=20, lr=1e30)
    assert len(records) < 20
    assert not math.isfinite(records[-1]["train.running_loss"])
    assert all(math.isfinite(record["train.running_loss"]) for record in records[:-1])


def test_early_stopping_ends_a_training_and_a_resumed_one_stays_ended(
    model: Small, batches: TrainBatches
):
    rule = {"patience_epochs": 2, "metric": "validation.top1"}
    records = train(model, batches, epochs=9, early_stopping=rule)
    assert len(records) == 3
    assert train(model, batches, epochs=9, early_stopping=rule, history=records) == []


def test_the_network_is_found_inside_a_compiled_one(model: Small):
    assert unwrap(torch.compile(model)) is model
    assert unwrap(model) is model


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_ten_training_steps_are_those_recorded(
    golden: Golden, trained: Callable[..., Any], name: str
):
    """One step an epoch, so that the record of each epoch is the step's own loss."""
    optimizer = {
        "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
        "adamw": {"name": "adamw", "lr": 2e-3, "momentum": None, "weight_decay": 0.01},
    }[name]
    trainer = trained(
        model={"name": "cnn3", "dropouts": [0.0, 0.0, 0.0]},
        augment={"padded_crop": {"padding": 1}, "horizontal_flip": {"p": 0.5}},
        optimizer=optimizer,
        schedule={"name": "cosine", "warmup_steps": 3},
        train={"epochs": 10, "global_batch_size": 64, "label_smoothing": 0.1},
    )
    names = ("step", "lr", "train.running_loss", "validation.loss")
    found = [{name: record[name] for name in names} for record in trainer.history]
    golden.check_json(f"ten_steps/{name}.json", found, rel=1e-4)
