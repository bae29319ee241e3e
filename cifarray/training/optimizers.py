"""The optimizers: which fields of a job each one uses, and how it is built; no torch on import.

A job may divide the parameters into groups by their names, each with its own scale of the learning
rate and its own weight decay.
"""

from __future__ import annotations

import re
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


SHOWN_NAMES = 4
"""Number of parameter names shown if a pattern matches none."""


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
    "muon": OptimizerEntry(
        "cifarray.training.muon:Muon",
        frozenset({"lr", "weight_decay", "momentum", "beta1", "beta2", "eps"}),
        "https://kellerjordan.github.io/posts/muon/",
    ),
}

GROUP_FIELDS = frozenset({"decay_norms", "groups"})
"""The fields of an OptimizerSpec that every optimizer uses."""


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
                + f": use --set optimizer.{field}=null"
            )
    if spec.nesterov and not spec.momentum:
        raise JobError(
            f"optimizer.nesterov requires a momentum above 0, not {spec.momentum}; set "
            "optimizer.momentum, as in 0.9"
        )


def parameter_groups(
    spec: OptimizerSpec, named: Iterable[tuple[str, nn.Parameter]]
) -> list[dict[str, Any]]:
    """The groups of the parameters that train, as torch's optimizers take them.

    Those of one pattern, or of none, stay together unless only some of them have weight decay.
    Raises: JobError for a pattern that matches none.
    """
    trained = [(name, weight) for name, weight in named if weight.requires_grad]
    groups: dict[tuple[int | None, bool], dict[str, Any]] = {}
    for name, weight in trained:
        matches = (number for number, g in enumerate(spec.groups) if re.search(g.pattern, name))
        is_bias_or_norm = weight.ndim <= 1 or name.endswith(".bias")  # timm's rule
        key = (next(matches, None), spec.decay_norms or not is_bias_or_norm)
        groups.setdefault(key, {"params": []})["params"].append(weight)
    for number, given in enumerate(spec.groups):
        ours = [group for (of, _), group in groups.items() if of == number]
        if not ours:
            names = ", ".join(name for name, _ in trained[:SHOWN_NAMES])
            raise JobError(
                f"optimizer.groups: pattern {given.pattern!r} matches no trainable parameter "
                f"that no earlier pattern matches; parameters are named like {names}"
            )
        for group in ours:
            group["lr_scale"] = given.lr_scale
            if given.weight_decay is not None:
                group["weight_decay"] = given.weight_decay
    for (_, decays), group in groups.items():
        if not decays:
            group["weight_decay"] = 0.0
    return list(groups.values())


def build_optimizer(spec: OptimizerSpec, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
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
    optimizer: Optimizer = build(parameter_groups(spec, named), **options)
    return optimizer


def _given(spec: OptimizerSpec) -> dict[str, Any]:
    return spec.model_dump(exclude={"name", *GROUP_FIELDS}, exclude_none=True)
