"""What the network shows to be wrong is refused before any epoch: a lone image, a pattern."""

from typing import Any

import pytest

from cifarray.data.split import shard_range
from cifarray.errors import JobError
from cifarray.training.batches import StepPlan
from cifarray.training.network_checks import check_network, fewest_rows
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, small_job

RGB = (32, 32, 3)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [5, 16, 33, 101])
@pytest.mark.parametrize("batch", [1, 2, 5, 7, 16, 50])
def test_the_fewest_rows_are_those_of_the_plans(rows: int, batch: int, world_size: int):
    ranges = [shard_range(rows, world_size, rank) for rank in range(world_size)]
    shards = [high - low for low, high in ranges]
    plans = [StepPlan.make(shards, batch, rank) for rank in range(world_size)]
    assert fewest_rows(shards, batch) == min(size for plan in plans for size in plan.sizes)


@pytest.mark.parametrize(
    ("model", "shape", "refused"),
    [
        ({"name": "timm/mobilenetv2_100"}, RGB, True),
        ({"name": "timm/mobilenetv2_100"}, (64, 64, 3), False),
        ({"name": "timm/mobilenetv2_100", "frozen": True, "weights": "timm"}, RGB, False),
        ({"name": "bn_cnn_small"}, RGB, True),
        ({"name": "fashion_cnn"}, (28, 28, 1), True),
        ({"name": "resnet18"}, RGB, False),
        ({"name": "cnn3"}, RGB, False),
    ],
)
def test_one_image_a_step_is_refused_where_batchnorm_wants_two(
    model: dict[str, Any], shape: tuple[int, int, int], refused: bool
):
    job = small_job(model=model, train={"global_batch_size": 3})
    if refused:
        sentence = (
            "^train.global_batch_size 3 leaves one worker a step with one image, but BatchNorm "
            f"of {model['name']} requires two at {shape[0]}x{shape[1]} pixels; raise it, or use "
            "fewer"
        )
        with pytest.raises(JobError, match=sentence):
            check_network(job, [10, 10], shape, 10)
    else:
        check_network(job, [10, 10], shape, 10)
    check_network(small_job(model=model, train={"global_batch_size": 4}), [10, 10], shape, 10)


def test_a_trainer_refuses_it_before_any_epoch(digits: Digits):
    job = small_job(model={"name": "timm/test_resnet"}, train={"global_batch_size": 1})
    with pytest.raises(JobError, match="leaves one worker a step with one image"):
        digits.trainer(job)


@pytest.mark.parametrize("model", ["resnet18", "timm/test_resnet"])
def test_a_pattern_that_matches_no_parameter_is_refused_before_a_run_is_recorded(model: str):
    job = small_job(model={"name": model}, optimizer={"groups": [{"pattern": "nowhere"}]})
    with pytest.raises(JobError, match="pattern 'nowhere' matches no trainable parameter"):
        check_network(job, [64], RGB, 10)
    check_network(small_job(optimizer={"groups": [{"pattern": "weight$"}]}), [64], (8, 8, 1), 10)


def test_a_network_without_batchnorm_learns_from_one_image_at_a_time(digits: Digits):
    job = small_job(dataset={"rows": 20}, train={"global_batch_size": 1, "epochs": 1})
    (record,) = Trainer(job, digits.rows(job)).records()
    assert record["step"] == 16
