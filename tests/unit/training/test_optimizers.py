"""Our optimizers take the very steps that torch's take with the same arguments."""

from typing import Any

import pytest
import torch
from torch import nn

from cifarray.errors import JobError
from cifarray.spec.job import OptimizerSpec
from cifarray.training.optimizers import OPTIMIZERS, build_optimizer, check_optimizer

CASES: list[tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = [
    ({"name": "sgd"}, torch.optim.SGD, {}),
    (
        {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    ({"name": "adam"}, torch.optim.Adam, {}),
    (
        {"name": "adam", "beta1": 0.8, "weight_decay": 0.1},
        torch.optim.Adam,
        {"betas": (0.8, 0.999), "weight_decay": 0.1},
    ),
    ({"name": "adamw"}, torch.optim.AdamW, {}),
    (
        {"name": "adamw", "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.0},
        torch.optim.AdamW,
        {"betas": (0.9, 0.95), "eps": 1e-3, "weight_decay": 0.0},
    ),
    ({"name": "rmsprop"}, torch.optim.RMSprop, {}),
    (
        {"name": "rmsprop", "alpha": 0.9, "momentum": 0.5, "eps": 1e-4, "weight_decay": 0.02},
        torch.optim.RMSprop,
        {"alpha": 0.9, "momentum": 0.5, "eps": 1e-4, "weight_decay": 0.02},
    ),
]


def steps(optimizer: torch.optim.Optimizer, model: nn.Linear) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = []
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(5, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        weights.append(model.weight.detach().clone())
    return weights


def fresh_model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize(("fields", "peer", "arguments"), CASES)
def test_the_weights_go_the_way_that_torchs_go(
    fields: dict[str, Any], peer: type[torch.optim.Optimizer], arguments: dict[str, Any]
):
    ours, theirs = fresh_model(), fresh_model()
    spec = OptimizerSpec(lr=0.03, **fields)
    our_way = steps(build_optimizer(spec, ours.parameters()), ours)
    their_way = steps(peer(theirs.parameters(), lr=0.03, **arguments), theirs)
    assert type(build_optimizer(spec, ours.parameters())) is peer
    for a, b in zip(our_way, their_way, strict=True):
        torch.testing.assert_close(a, b)


def test_every_optimizer_has_a_case():
    assert {fields["name"] for fields, _, _ in CASES} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_field_that_an_optimizer_names_changes_its_way(name: str):
    other = {
        "lr": 0.5, "weight_decay": 0.3, "momentum": 0.7, "nesterov": True,
        "beta1": 0.5, "beta2": 0.5, "alpha": 0.5, "eps": 0.1,
    }  # fmt: skip
    for field in OPTIMIZERS[name].fields:
        base = {"momentum": 0.9} if field == "nesterov" else {}
        ways = []
        for change in ({}, {field: other[field]}):
            model = fresh_model()
            spec = OptimizerSpec.model_validate({"name": name} | base | change)
            ways.append(steps(build_optimizer(spec, model.parameters()), model)[-1])
        assert not torch.equal(*ways), field


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_field_that_an_optimizer_does_not_name_is_refused(name: str):
    values = {
        "weight_decay": 0.1, "momentum": 0.9, "nesterov": False,
        "beta1": 0.9, "beta2": 0.9, "alpha": 0.9, "eps": 1e-8,
    }  # fmt: skip
    unused = set(values) - OPTIMIZERS[name].fields
    assert unused
    for field in unused:
        spec = OptimizerSpec.model_validate({"name": name, field: values[field]})
        with pytest.raises(JobError, match=f"{name} does not use optimizer.{field}; it uses"):
            check_optimizer(spec)


@pytest.mark.parametrize("momentum", [None, 0.0])
def test_nesterov_without_momentum_is_refused(momentum: float | None):
    with pytest.raises(JobError, match=r"set optimizer\.momentum"):
        check_optimizer(OptimizerSpec(name="sgd", nesterov=True, momentum=momentum))


def test_an_unknown_optimizer_names_its_neighbour():
    with pytest.raises(JobError, match=r"unknown optimizer 'adamv'; .*did you mean adam"):
        check_optimizer(OptimizerSpec(name="adamv"))
