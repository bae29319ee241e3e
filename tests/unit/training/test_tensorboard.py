"""TensorBoard's files, read back with TensorBoard's own reader."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.store.layout import CURVES_FILE, GRAPH_FILE
from cifarray.training.tensorboard import CURVES, Board, Probe, carry_histograms
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, same_weights, small_job, weights_of, without_times

FOLDER = "runs/few-digits-1/attempts/1"
EVERY_OTHER = {"epochs": 4, "histograms": {"every_epochs": 2}}
UNTRACEABLE = """
from torch import nn


class Moody(nn.Module):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.fc = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def forward(self, images):
        if self.fc.weight.requires_grad and __import__("torch").jit.is_tracing():
            raise RuntimeError("not\\nto be traced")
        return self.fc(images.flatten(1))
"""


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def read(store: Store, folder: str = FOLDER) -> EventAccumulator:
    """What TensorBoard makes of a run's folder, once that is on this machine."""
    with tempfile.TemporaryDirectory() as here:
        for entry in store.list(f"{folder}/tensorboard"):
            store.download(entry.key, Path(here) / entry.key.rpartition("/")[2])
        return EventAccumulator(here, size_guidance={"histograms": 0}).Reload()


def names(store: Store, folder: str = FOLDER) -> list[str]:
    return [entry.key.rpartition("/")[2] for entry in store.list(f"{folder}/tensorboard")]


def train(trainer: Trainer, board: Board, epochs: int | None = None) -> Trainer:
    """Train as a worker does, to the end or up to an epoch."""
    for record in trainer.records():
        board.show(trainer)
        if record["epoch"] == epochs:
            break
    return trainer


def resumed(trainer: Trainer, digits: Digits, job: Job) -> Trainer:
    other = digits.trainer(job)
    other.restore(trainer.state())
    return other


def test_every_figure_of_every_epoch_is_a_point_of_a_curve(store: Store, digits: Digits):
    trainer = train(digits.trainer(small_job(train={"epochs": 3})), Board(store, FOLDER))
    events = read(store)
    assert set(events.Tags()["scalars"]) == set(CURVES)
    for tag, name in CURVES.items():
        points = events.Scalars(tag)
        assert [point.step for point in points] == [1, 2, 3]
        expected = [record[name] for record in trainer.history]
        assert np.allclose([point.value for point in points], expected, rtol=1e-6)


def test_curves_stand_at_the_time_at_which_their_epoch_ended(store: Store, digits: Digits):
    trainer = train(digits.trainer(), Board(store, FOLDER))
    spent = [point.wall_time for point in read(store).Scalars("loss/train")]
    assert spent[1] > spent[0]
    assert abs(spent[1] - spent[0] - trainer.history[1]["epoch_s"]) < 5


def test_a_new_attempt_draws_every_epoch_from_the_first_on_once(store: Store, digits: Digits):
    job = small_job(train={"epochs": 4})
    first = train(digits.trainer(job), Board(store, FOLDER), epochs=2)
    other = FOLDER.replace("/1", "/2")
    train(resumed(first, digits, job), Board(store, other))
    assert [point.step for point in read(store, other).Scalars("top1/validation")] == [1, 2, 3, 4]
    assert [point.step for point in read(store).Scalars("top1/validation")] == [1, 2]


def test_a_worker_that_is_replaced_within_an_attempt_leaves_no_epoch_twice(
    store: Store, digits: Digits
):
    job = small_job(train=EVERY_OTHER)
    trainer = digits.trainer(job)
    states = []
    for _ in trainer.records():
        Board(store, FOLDER).show(trainer)
        states.append(trainer.state() if len(states) < 1 else None)
    again = digits.trainer(job)
    again.restore(states[0] or {})
    train(again, Board(store, FOLDER))
    events = read(store)
    assert [point.step for point in events.Scalars("lr")] == [1, 2, 3, 4]
    weight = next(tag for tag in events.Tags()["histograms"] if tag.startswith("weights/"))
    assert [point.step for point in events.Histograms(weight)] == [2, 4]


def test_a_trainer_that_had_ended_draws_its_curves_into_a_new_folder(store: Store, digits: Digits):
    ended = train(digits.trainer(), Board(store, FOLDER))
    other = FOLDER.replace("/1", "/2")
    Board(store, other).show(resumed(ended, digits, ended.job))
    assert [point.step for point in read(store, other).Scalars("lr")] == [1, 2]


def test_a_figure_that_is_no_number_does_not_end_the_curves(store: Store, digits: Digits):
    trainer = train(digits.trainer(), Board(store, FOLDER))
    trainer.history[-1]["validation.loss"] = math.nan
    trainer.history[-1]["validation.top5"] = None
    other = FOLDER.replace("/1", "/2")
    Board(store, other).show(trainer)
    events = read(store, other)
    assert math.isnan(events.Scalars("loss/validation")[-1].value)
    assert [point.step for point in events.Scalars("top5/validation")] == [1]


def test_the_graph_is_drawn_once_and_names_the_networks_layers(store: Store, digits: Digits):
    trainer = digits.trainer()
    train(trainer, Board(store, FOLDER))
    graph = read(store).Graph()
    layers = {name for name, module in Probe.of(trainer).network.named_children()}
    nodes = "\n".join(node.name for node in graph.node)
    assert layers
    assert all(f"[{layer}]" in nodes for layer in layers)
    tag = store.read_tagged(f"{FOLDER}/tensorboard/{GRAPH_FILE}")[1]
    Board(store, FOLDER).show(trainer)
    assert store.read_tagged(f"{FOLDER}/tensorboard/{GRAPH_FILE}")[1] == tag


def test_a_network_that_cannot_be_traced_is_told_once_and_trains_on(
    store: Store, digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "network_of_test_board.py").write_text(UNTRACEABLE)
    job = small_job(model={"name": "network_of_test_board:Moody"})
    trainer = Trainer(job, digits.rows(job), tmp_path)
    train(trainer, Board(store, FOLDER))
    said = "TensorBoard has no graph of the network: not to be traced\n"
    assert capsys.readouterr().out == said
    assert names(store) == [CURVES_FILE]


def test_a_store_that_takes_no_event_file_is_told_once_and_ends_no_training(
    local_store: Store, digits: Digits, capsys: pytest.CaptureFixture[str]
):
    local_store.write(f"{FOLDER}/tensorboard", b"a file where the folder should be")
    trainer = train(digits.trainer(), Board(local_store, FOLDER))
    assert len(trainer.history) == 2
    assert capsys.readouterr().out.count("warning: TensorBoard's files are incomplete: ") == 1


def test_histograms_come_every_so_many_epochs_and_not_without_being_asked_for(
    store: Store, digits: Digits
):
    train(digits.trainer(small_job(train=EVERY_OTHER)), Board(store, FOLDER))
    events = read(store)
    tags = events.Tags()["histograms"]
    assert {tag.partition("/")[0] for tag in tags} == {"weights", "gradients", "activations"}
    for tag in tags:
        assert [point.step for point in events.Histograms(tag)] == [2, 4]
    sparsity = [tag for tag in events.Tags()["scalars"] if tag.startswith("sparsity_of_")]
    assert {tag.partition("/")[0] for tag in sparsity} == {
        "sparsity_of_weights",
        "sparsity_of_activations",
    }
    other = FOLDER.replace("/1", "/2")
    train(digits.trainer(small_job(train={"epochs": 2})), Board(store, other))
    assert read(store, other).Tags()["histograms"] == []


@pytest.mark.parametrize(
    ("model", "options"),
    [("cnn3", {"epochs": 2}), ("resnet18", {"epochs": 2}), ("cnn3", {"ema_decay": 0.9})],
    ids=["dropout", "BatchNorm", "EMA"],
)
def test_a_training_that_is_looked_into_ends_with_the_same_bits(
    local_store: Store, digits: Digits, model: str, options: dict[str, Any]
):
    plain = digits.trainer(small_job(model={"name": model}, train=options))
    records = [without_times(record) for record in plain.records()]
    looked_into = {**options, "histograms": {"every_epochs": 1}}
    job = small_job(model={"name": model}, train=looked_into)
    shown = train(digits.trainer(job), Board(local_store, FOLDER))
    assert read(local_store).Tags()["histograms"]
    assert [without_times(record) for record in shown.history] == records
    assert same_weights(weights_of(shown), weights_of(plain))


def test_an_attempt_takes_over_the_histograms_up_to_its_epoch(store: Store, digits: Digits):
    train(digits.trainer(small_job(train=EVERY_OTHER)), Board(store, FOLDER))
    store.write(f"{FOLDER}/tensorboard/events.out.tfevents.histograms.x", b"a stranger's")
    other = FOLDER.replace("/1", "/2")
    carry_histograms(store, FOLDER, other, last_epoch=3)
    assert names(store, other) == ["events.out.tfevents.histograms.000002"]
