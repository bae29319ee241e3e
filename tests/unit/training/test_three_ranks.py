"""One, two and three ranks come to the same: gradients, figures, evaluation, resumption."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from cifarray.report.scores import Predictions
from cifarray.training.checkpoint import load_checkpoint
from cifarray.training.evaluation import predict_shard
from tests.digit_sessions import Digits, small_job
from tests.unit.training.three_ranks import EVALUATED, SHARDS, WORLDS, exact_network

REPOSITORY = Path(__file__).parents[3]
SPLITS = ("train", "validation", "test")
Seen = dict[tuple[int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where three processes have left what they saw."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.unit.training.three_ranks", digits.store.uri, folder]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    """What each rank of each world saw, by (world size, rank)."""
    return {
        (world, rank): torch.load(folder / f"{world}-{rank}.pt", weights_only=False)
        for world in WORLDS
        for rank in range(world)
    }


def plain_torch(seen: Seen, world: int, name: str) -> tuple[list[Any], list[torch.Tensor]]:
    """Gradients and weights of a plain loop on the joined batches of all ranks of a world."""
    model = exact_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    for parts in zip(*(seen[world, rank][name]["batches"] for rank in range(world)), strict=True):
        images_NCHW = torch.cat([images for images, _ in parts])
        labels_N = torch.cat([labels for _, labels in parts])
        optimizer.zero_grad()
        cross_entropy(model(images_NCHW), labels_N, label_smoothing=0.1).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        optimizer.step()
    return gradients, list(model.state_dict().values())


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float64
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("world", [2, 3])
def test_several_workers_give_the_gradients_of_one_on_the_same_global_batch(
    seen: Seen, world: int, shards: str
):
    alone = seen[1, 0][f"whole batches, {shards}"]
    assert len(alone["gradients"]) == 3
    assert max(gradient.abs().max() for gradient in alone["gradients"][0]) > 1e-3
    for rank in range(world):
        together = seen[world, rank][f"whole batches, {shards}"]
        for found, expected in zip(together["gradients"], alone["gradients"], strict=True):
            assert_close(found, expected)
        assert_close(together["weights"], alone["weights"])


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("world", WORLDS)
def test_every_steps_gradient_is_the_mean_over_the_rows_of_all_ranks(
    seen: Seen, world: int, shards: str
):
    name = f"batches of 16, {shards}"
    gradients, weights = plain_torch(seen, world, name)
    assert len(gradients) == 6
    for rank in range(world):
        for found, expected in zip(seen[world, rank][name]["gradients"], gradients, strict=True):
            assert_close(found, expected)
        assert_close(seen[world, rank][name]["weights"], weights)


def test_ranks_hold_different_numbers_of_rows_in_the_same_step(seen: Seen):
    sizes = [
        [len(labels) for _, labels in seen[2, rank]["batches of 16, far apart"]["batches"]]
        for rank in range(2)
    ]
    assert all(few < many for few, many in zip(*sizes, strict=True))


@pytest.mark.parametrize("world", WORLDS)
def test_running_figures_count_every_row_of_every_rank(seen: Seen, world: int):
    rows = sum(SHARDS["far apart"][world])
    alone = seen[1, 0]["whole batches, far apart"]["records"]
    for rank in range(world):
        records = seen[world, rank]["whole batches, far apart"]["records"]
        for record, expected in zip(records, alone, strict=True):
            assert record["train_rows"] == rows
            assert record["world_size"] == world
            assert record["train.running_loss"] == pytest.approx(
                expected["train.running_loss"], rel=1e-9
            )
            assert record["train.running_top1"] == expected["train.running_top1"]


def test_every_rank_of_every_world_whitens_by_the_same_bits(seen: Seen):
    expected = seen[1, 0]["whitening"]
    assert expected["matrix"].shape == (64, 64)
    for world in WORLDS:
        for rank in range(world):
            found = seen[world, rank]["whitening"]
            assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("world", WORLDS)
def test_the_ranks_of_a_world_train_a_head_on_features_as_they_do_on_images(seen: Seen, world: int):
    for rank in range(world):
        found = seen[world, rank]["features"]
        assert found["cache"] == found["features"]
        assert len(found["images"]) == 2
        for on_features, on_images in zip(found["features"], found["images"], strict=True):
            for name in ("train.running_loss", "validation.loss"):
                assert on_features[name] == pytest.approx(on_images[name], abs=1e-5)


@pytest.fixture(scope="module")
def alone(folder: Path, digits: Digits) -> dict[tuple[str, str], Predictions]:
    """What this process predicts from the checkpoints, by network and split."""
    predictions = {}
    for name, sections in EVALUATED.items():
        checkpoint, rows = load_checkpoint(folder / name), digits.rows(small_job(**sections))
        for split in SPLITS:
            predictions[name, split] = predict_shard(
                checkpoint.model, rows.shard(split), checkpoint.preprocess
            )
    return predictions


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", EVALUATED)
def test_workers_predict_row_by_row_what_one_process_predicts_from_the_checkpoint(
    seen: Seen, alone: dict[tuple[str, str], Predictions], name: str, world: int, split: str
):
    found = Predictions.from_table(seen[world, 0][f"evaluation of {name}"]["predictions"][split])
    expected = alone[name, split]
    assert found.rows == {"train": 81, "validation": 20, "test": 360}[split]
    for column in ("row_ids", "labels", "predictions", "top5_hits"):
        assert np.array_equal(getattr(found, column), getattr(expected, column)), column
    for column in ("probabilities", "losses"):
        np.testing.assert_allclose(
            getattr(found, column), getattr(expected, column), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", EVALUATED)
def test_an_epochs_validation_figures_are_those_of_its_checkpoints_predictions(
    seen: Seen, alone: dict[tuple[str, str], Predictions], name: str
):
    predictions = alone[name, "validation"]
    for rank in range(2):
        last = seen[2, rank][f"evaluation of {name}"]["history"][-1]
        assert last["validation.top1"] == predictions.top1
        assert last["validation.top5"] == predictions.top5
        assert last["validation.loss"] == pytest.approx(predictions.loss, rel=1e-12)


@pytest.mark.parametrize("world", WORLDS)
def test_only_rank_0_has_the_predictions(seen: Seen, world: int):
    having = [
        rank for rank in range(world) if seen[world, rank]["evaluation of cnn3"]["predictions"]
    ]
    assert having == [0]


def test_batchnorm_drifts_between_ranks_until_rank_0_shares_its_own(seen: Seen):
    zero, one = (seen[2, rank]["drift"] for rank in range(2))
    assert not torch.equal(zero["before"][0], one["before"][0])
    for own, shared, received in zip(zero["before"], zero["after"], one["after"], strict=True):
        assert torch.equal(own, shared)
        assert torch.equal(own, received)


def test_two_ranks_resume_with_the_weights_of_an_uninterrupted_run(seen: Seen):
    for rank in range(2):
        resumption = seen[2, rank]["resumption"]
        assert resumption["same"]
        assert [record["epoch"] for record in resumption["rest"]] == [2]
        assert resumption["rest"] == resumption["records"][1:]


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_hear_each_other(seen: Seen, world: int):
    for rank in range(world):
        assert seen[world, rank]["talk"] == {
            "world": (rank, world),
            "sum": [float(world), float(sum(range(world)))],
            "gathered": [f"rank {other}" for other in range(world)],
            "from 0": "rank 0",
        }


@pytest.mark.parametrize("world", WORLDS)
def test_one_rank_that_sees_no_gpu_makes_all_refuse_in_the_same_words(seen: Seen, world: int):
    said = {seen[world, rank]["refusal"] for rank in range(world)}
    assert len(said) == 1
    assert f"the worker on {socket.gethostname()} should have a GPU" in said.pop()
