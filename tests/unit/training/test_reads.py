"""Which fields a job's network, optimizer and schedule leave unread."""

from typing import Any

import pytest

from cifarray.training.reads import unread_fields
from tests.digit_sessions import small_job


@pytest.mark.parametrize(
    ("sections", "unread"),
    [
        ({}, []),
        ({"optimizer": {"name": "adam"}}, ["optimizer.momentum"]),
        ({"optimizer": {"name": "rmsprop", "alpha": 0.9}}, []),
        ({"optimizer": {"alpha": 0.9, "eps": 0.8}}, ["optimizer.alpha", "optimizer.eps"]),
        ({"optimizer": {"weight_decay": 0.0}}, []),
        ({"schedule": {"gamma": 0.5}}, ["schedule.gamma"]),
        ({"schedule": {"warmup_epochs": 1.0}}, []),
        ({"schedule": {"name": "cosine", "final_fraction": 0.1}}, []),
        ({"schedule": {"name": "step", "final_fraction": 0.1}}, ["schedule.final_fraction"]),
        ({"model": {"dropouts": [0.1, 0.1, 0.1]}}, []),
        ({"model": {"name": "resnet18", "dropouts": [0.1]}}, ["model.dropouts"]),
        ({"model": {"name": "cnn3", "args": {"width": 3}}}, ["model.args"]),
        ({"model": {"name": "my.package:net", "args": {"width": 3}, "dropout": 0.1}}, []),
        ({"model": {"name": "nowhere", "args": {"width": 3}}, "optimizer": {"name": "sgdd"}}, []),
    ],
)  # fmt: skip
def test_fields_that_nothing_reads_are_named(sections: dict[str, Any], unread: list[str]):
    assert unread_fields(small_job(**sections)) == unread
