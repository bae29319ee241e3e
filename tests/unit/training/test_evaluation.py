"""Evaluation looks at every row once, in eval mode, and its figures are scikit-learn's."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torch import Tensor, nn

from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import ResidentShard, Rows
from cifarray.spec.augment import PreprocessSpec
from cifarray.training.evaluation import EVALUATION_BATCH, predict_shard, validation_figures
from cifarray.training.trainer import Trainer
from tests.digit_sessions import CPU

COUNTS = [1, EVALUATION_BATCH - 1, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 3]


class Network(nn.Module):
    """A dense layer behind dropout and BatchNorm, that remembers its batches."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, classes)
        )
        self.batches: list[int] = []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.batches.append(len(images_NCHW))
        logits_NK: Tensor = self.layers(images_NCHW)
        return logits_NK


@pytest.fixture
def normalize() -> Normalize:
    return Normalize(PreprocessSpec(), [0.5], [0.3])


def rows_of(count: int, classes: int = 10) -> Rows:
    draws = torch.Generator().manual_seed(count)
    images_NCHW = torch.randint(0, 256, (count, 1, 8, 8), generator=draws, dtype=torch.uint8)
    labels_N = torch.randint(0, classes, (count,), generator=draws)
    return Rows(images_NCHW, labels_N, torch.randperm(count, generator=draws))


@pytest.mark.parametrize("count", COUNTS)
def test_every_row_is_evaluated_once(count: int, normalize: Normalize):
    rows = rows_of(count)
    found = predict_shard(Network(), ResidentShard(rows, CPU), normalize)
    assert np.array_equal(found.row_ids, np.arange(count))
    order = rows.row_ids_N.argsort()
    assert np.array_equal(found.labels, rows.labels_N[order].numpy())


def test_figures_are_those_of_scikit_learn(normalize: Normalize):
    rows, network = rows_of(300), Network()
    found = predict_shard(network, ResidentShard(rows, CPU), normalize)
    with torch.no_grad():
        scores = network.eval()(normalize(rows.images_NCHW)).double().softmax(1).numpy()
    labels = rows.labels_N.numpy()
    assert found.top1 == accuracy_score(labels, scores.argmax(1))
    assert found.top5 == top_k_accuracy_score(labels, scores, k=5, labels=range(10))
    assert found.loss == pytest.approx(log_loss(labels, scores, labels=range(10)), rel=1e-5)
    order = rows.row_ids_N.argsort()
    np.testing.assert_allclose(found.probabilities, scores.max(1)[order], rtol=1e-5)


def test_of_fewer_than_five_classes_every_row_is_a_top5_hit(normalize: Normalize):
    found = predict_shard(Network(3), ResidentShard(rows_of(20, 3), CPU), normalize)
    assert found.top5 == 1.0


def test_every_batch_is_filled_up_so_that_a_rows_neighbors_do_not_matter(normalize: Normalize):
    network = Network()
    predict_shard(network, ResidentShard(rows_of(EVALUATION_BATCH + 1), CPU), normalize)
    assert network.batches == [EVALUATION_BATCH] * 2


def test_a_row_is_predicted_alike_alone_and_among_others(normalize: Normalize):
    rows, network = rows_of(40), Network()
    together = predict_shard(network, ResidentShard(rows, CPU), normalize)
    for place in (0, 17, 39):
        alone = predict_shard(
            network, ResidentShard(rows.take(slice(place, place + 1)), CPU), normalize
        )
        (row_id,) = alone.row_ids
        assert alone.predictions[0] == together.predictions[row_id]
        assert alone.losses[0] == pytest.approx(together.losses[row_id], rel=1e-6)


def test_evaluation_draws_nothing_and_changes_nothing(normalize: Normalize):
    network = Network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    shard = ResidentShard(rows_of(30), CPU)
    one, two = (predict_shard(network, shard, normalize) for _ in range(2))
    assert np.array_equal(one.losses, two.losses)
    assert network.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_in_eval_mode_stays_there(normalize: Normalize):
    network = Network().eval()
    predict_shard(network, ResidentShard(rows_of(3), CPU), normalize)
    assert not network.training


def test_an_empty_shard_has_no_predictions(normalize: Normalize):
    assert predict_shard(Network(), ResidentShard(rows_of(0), CPU), normalize).rows == 0


def test_validation_figures_are_the_means_over_the_rows(normalize: Normalize):
    found = predict_shard(Network(), ResidentShard(rows_of(77), CPU), normalize)
    figures = validation_figures(found, CPU)
    assert figures["validation.top1"] == found.top1
    assert figures["validation.top5"] == found.top5
    assert figures["validation.loss"] == pytest.approx(found.loss, rel=1e-12)
    assert all(math.isfinite(value) for value in figures.values())


def test_a_trainer_in_bf16_is_validated_in_float32(trained: Callable[..., Trainer]):
    trainer = trained(train={"precision": "bf16"})
    predictions = trainer.evaluate(trainer.state()["model"])
    assert predictions is not None
    loss = predictions["validation"].loss
    assert trainer.history[-1]["validation.loss"] == pytest.approx(loss, rel=1e-9)
