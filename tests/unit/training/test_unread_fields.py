"""Which fields a job's own choices leave unread."""

from typing import Any

import pytest

from cifarray.spec.job import Job
from cifarray.spec.load import fields_of, with_fields
from cifarray.training.trials import SWITCHES, decides, unread_fields
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
        ({"augment": {"fill": "zeros"}}, ["augment.fill"]),
        ({"augment": {"fill": "zeros", "zoom": {"fraction": 0.1}, "mixup": {}}}, []),
        ({"preprocess": {"normalize": "unit", "epsilon": 0.1}}, ["preprocess.epsilon"]),
        ({"preprocess": {"normalize": "whitening", "epsilon": 0.1}}, []),
        ({"preprocess": {"normalize": "unit", "resize": 64}}, []),
        ({"model": {"dropouts": [0.1, 0.1, 0.1]}}, []),
        ({"model": {"name": "resnet18", "dropouts": [0.1]}}, ["model.dropouts"]),
        ({"model": {"name": "cnn3", "args": {"width": 3}}}, ["model.args"]),
        ({"model": {"name": "my.package:net", "args": {"width": 3}, "dropout": 0.1}}, []),
        ({"model": {"name": "nowhere", "args": {"width": 3}}, "optimizer": {"name": "sgdd"}}, []),
    ],
)  # fmt: skip
def test_fields_that_nothing_reads_are_named(sections: dict[str, Any], unread: list[str]):
    assert unread_fields(small_job(**sections)) == unread


def test_names_and_switches_decide_what_is_read():
    assert decides("optimizer.name")
    assert all(map(decides, SWITCHES))
    assert not decides("optimizer.lr")
    assert not decides("augment.zoom.fraction")


def test_every_switch_changes_what_is_read():
    section = {"normalize": "whitening", "epsilon": 0.1}
    other = {"preprocess.normalize": "unit"}
    assert unread_fields(with_fields(small_job(preprocess=section), other)) == [
        "preprocess.epsilon"
    ]
    for name in sorted(SWITCHES - other.keys()):
        (field,) = (path for path in fields_of(Job) if path.startswith(f"{name}."))
        given = {"augment.fill": "zeros", field: 0.1}
        assert unread_fields(with_fields(small_job(), given)) == []
        assert unread_fields(with_fields(small_job(), given | {name: None})) == ["augment.fill"]
