"""The optimizers: which fields of a job each one uses, and how it is built; no torch on import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from cifarray.errors import JobError
from cifarray.spec.job import OptimizerSpec
from cifarray.spec.load import unknown_name

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class OptimizerEntry:
    """An optimizer of the registry."""

    factory: str
    """`module:class`, called as torch's optimizers are."""
    fields: frozenset[str]
    """The fields of an OptimizerSpec, besides its name, that it uses."""
    paper: str


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(
        "torch.optim:SGD",
        frozenset({"lr", "weight_decay", "momentum", "nesterov"}),
        "https://proceedings.mlr.press/v28/sutskever13.html",
    ),
    "adam": OptimizerEntry(
        "torch.optim:Adam",
        frozenset({"lr", "weight_decay", "beta1", "beta2", "eps"}),
        "https://arxiv.org/abs/1412.6980",
    ),
    "adamw": OptimizerEntry(
        "torch.optim:AdamW",
        frozenset({"lr", "weight_decay", "beta1", "beta2", "eps"}),
        "https://arxiv.org/abs/1711.05101",
    ),
    "rmsprop": OptimizerEntry(
        "torch.optim:RMSprop",
        frozenset({"lr", "weight_decay", "momentum", "alpha", "eps"}),
        "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
    ),
}


def check_optimizer(spec: OptimizerSpec) -> None:
    """Refuse an unknown name, a field that the optimizer does not use, Nesterov without momentum.

    Raises: JobError.
    """
    if spec.name not in OPTIMIZERS:
        raise JobError(unknown_name("optimizer", spec.name, OPTIMIZERS))
    used = OPTIMIZERS[spec.name].fields
    for field in _given(spec):
        if field not in used:
            raise JobError(
                f"optimizer {spec.name} does not use optimizer.{field}; it uses "
                + ", ".join(sorted(used))
                + f": say --set optimizer.{field}=null"
            )
    if spec.nesterov and not spec.momentum:
        raise JobError(
            f"optimizer.nesterov wants a momentum above 0, not {spec.momentum}; set "
            "optimizer.momentum, as in 0.9"
        )


def build_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimizer over the parameters; what the job leaves out keeps torch's default.

    Raises: JobError.
    """
    check_optimizer(spec)
    module, _, name = OPTIMIZERS[spec.name].factory.partition(":")
    build = getattr(import_module(module), name)
    options: dict[str, Any] = _given(spec)
    if {"beta1", "beta2"} & options.keys():
        beta1, beta2 = signature(build).parameters["betas"].default
        options["betas"] = options.pop("beta1", beta1), options.pop("beta2", beta2)
    if "fused" in signature(build).parameters:
        options["fused"] = True  # one pass over the weights, on the CPU too
    optimizer: Optimizer = build(parameters, **options)
    return optimizer


def _given(spec: OptimizerSpec) -> dict[str, Any]:
    return spec.model_dump(exclude={"name"}, exclude_none=True)
