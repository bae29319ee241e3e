"""Our optimizers take the very steps that torch's take with the same arguments, in their groups."""

from typing import Any

import pytest
import torch
from torch import nn

from cifarray.errors import JobError
from cifarray.models.registry import build_model
from cifarray.models.timm_classifier import timm_classifier
from cifarray.spec.job import ModelSpec, OptimizerSpec
from cifarray.spec.load import load_job
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
    our_way = steps(build_optimizer(spec, ours.named_parameters()), ours)
    their_way = steps(peer(theirs.parameters(), lr=0.03, **arguments), theirs)
    assert type(build_optimizer(spec, ours.named_parameters())) is peer
    for a, b in zip(our_way, their_way, strict=True):
        torch.testing.assert_close(a, b)


def test_every_optimizer_has_a_case():
    assert {fields["name"] for fields, _, _ in CASES} == set(OPTIMIZERS) - {"muon"}


class Both:
    """Torch's Muon for a layer's weight, and its AdamW for the bias."""

    def __init__(self, layer: nn.Linear, **options: Any) -> None:
        muon = {name: options[name] for name in ("lr", "weight_decay", "momentum")}
        adamw = {name: options[name] for name in ("lr", "weight_decay", "betas", "eps")}
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon([layer.weight], adjust_lr_fn="match_rms_adamw", **muon),
            torch.optim.AdamW([layer.bias], **adamw),
        ]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


MUON_CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    (
        {"momentum": 0.8, "weight_decay": 0.3, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3},
        {"momentum": 0.8, "weight_decay": 0.3, "betas": (0.5, 0.9), "eps": 1e-3},
    ),
]
MUON_DEFAULTS = {"weight_decay": 0.1, "momentum": 0.95, "betas": (0.9, 0.999), "eps": 1e-8}


@pytest.mark.parametrize(("fields", "arguments"), MUON_CASES)
def test_muon_is_torchs_for_matrices_and_its_adamw_for_the_rest(
    fields: dict[str, Any], arguments: dict[str, Any]
):
    ours, theirs = fresh_model(), fresh_model()
    spec = OptimizerSpec(name="muon", lr=0.03, **fields)
    our_way = steps(build_optimizer(spec, ours.named_parameters()), ours)
    peer: Any = Both(theirs, **{**MUON_DEFAULTS, "lr": 0.03, **arguments})
    for a, b in zip(our_way, steps(peer, theirs), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_takes_a_convolution_for_a_matrix_with_a_row_per_channel(layout: torch.memory_format):
    """Of a kernel as large as the image it is a dense layer."""
    dense = fresh_model()
    convolution = nn.Conv2d(1, 3, 2)
    convolution.load_state_dict(
        {"weight": dense.weight.detach().view(3, 1, 2, 2), "bias": dense.bias.detach()}
    )
    convolution = convolution.to(memory_format=layout)
    network = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), convolution, nn.Flatten())
    spec = OptimizerSpec(name="muon", lr=0.03)
    expected = steps(build_optimizer(spec, dense.named_parameters()), dense)[-1]
    generator = torch.Generator().manual_seed(3)
    optimizer = build_optimizer(spec, network.named_parameters())
    for _ in range(6):
        optimizer.zero_grad()
        network(torch.randn(5, 4, generator=generator)).square().mean().backward()
        optimizer.step()
    # Gradients differ in their last bits, and bfloat16 has 8 of them.
    torch.testing.assert_close(convolution.weight.detach().flatten(1), expected, rtol=0, atol=2e-3)


def test_muon_leaves_vectors_and_single_rows_to_adamw():
    network = timm_classifier("test_vit", 10, head=8)
    optimizer = build_optimizer(OptimizerSpec(name="muon"), network.named_parameters())
    names = {id(weight): name for name, weight in network.named_parameters()}
    rules = {
        names[id(weight)]: group["rule"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert rules.keys() == set(names.values())
    assert rules["backbone.cls_token"] == rules["backbone.norm.weight"] == "adamw"
    assert rules["head.0.weight"] == rules["backbone.patch_embed.proj.weight"] == "muon"


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", ["bn_cnn_small", "timm/test_resnet", "timm/test_vit"])
def test_decay_norms_leaves_biases_and_norms_out_of_weight_decay_and_nothing_else(
    model: str, optimizer: str
):
    head = 8 if model.startswith("timm") else None
    network = build_model(ModelSpec(name=model, head=head), 10, (32, 32, 3))
    spec = OptimizerSpec(name=optimizer, weight_decay=0.3, decay_norms=False)
    groups = build_optimizer(spec, network.named_parameters()).param_groups
    free = {id(w) for group in groups if group["weight_decay"] == 0.0 for w in group["params"]}
    expected = {
        id(weight)
        for layer in network.modules()
        for name, weight in layer.named_parameters(recurse=False)
        if name == "bias" or isinstance(layer, NORMS)
    }
    assert expected
    assert free == expected
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}


GROUPS = [
    {"pattern": r"^0\.", "lr_scale": 0.1},
    {"pattern": "bias$", "weight_decay": 0.2},
    {"pattern": "^[01]", "lr_scale": 3.0},
]


def test_the_first_pattern_that_matches_decides_and_the_rest_keeps_the_optimizers_own():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    spec = OptimizerSpec.model_validate({"weight_decay": 0.01, "groups": GROUPS})
    names = {id(weight): name for name, weight in network.named_parameters()}
    found = {
        tuple(names[id(weight)] for weight in group["params"]): (
            group.get("lr_scale"),
            group["weight_decay"],
        )
        for group in build_optimizer(spec, network.named_parameters()).param_groups
    }
    assert found == {
        ("0.weight", "0.bias"): (0.1, 0.01),
        ("1.bias", "2.bias"): (1.0, 0.2),
        ("1.weight",): (3.0, 0.01),
        ("2.weight",): (None, 0.01),
    }


@pytest.mark.parametrize(
    "pattern", ["head", r"^0\.weight$"], ids=["of no parameter", "of what an earlier one took"]
)
def test_a_pattern_that_matches_no_parameter_is_refused(pattern: str):
    groups = [{"pattern": r"^0\."}, {"pattern": pattern}]
    spec = OptimizerSpec.model_validate({"groups": groups})
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with pytest.raises(JobError) as caught:
        build_optimizer(spec, network.named_parameters())
    assert str(caught.value) == (
        f"optimizer.groups: pattern {pattern!r} matches no trainable parameter that no earlier "
        "pattern matches; parameters are named like 0.weight, 0.bias, 1.weight, 1.bias"
    )


def test_a_frozen_parameter_is_in_no_group():
    network = timm_classifier("test_resnet", 10, head=8, frozen=True)
    spec = OptimizerSpec.model_validate({"groups": [{"pattern": "head"}]})
    (group,) = build_optimizer(spec, network.named_parameters()).param_groups
    assert len(group["params"]) == 4
    with pytest.raises(JobError, match="matches no trainable parameter"):
        build_optimizer(
            OptimizerSpec.model_validate({"groups": [{"pattern": "backbone"}]}),
            network.named_parameters(),
        )


def test_groups_are_given_as_a_list_on_the_command_line_too():
    (group,) = load_job(
        "train-digits", ["optimizer.groups=[{pattern: head, lr_scale: 10}]"]
    ).optimizer.groups
    assert (group.pattern, group.lr_scale, group.weight_decay) == ("head", 10.0, None)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("optimizer.groups=[{pattern: '('}]", r"optimizer\.groups\.0\.pattern: this is not a"),
        ("optimizer.groups=[{lr_scale: 2}]", r"optimizer\.groups\.0\.pattern is missing"),
        ("optimizer.groups=[{pattern: a, lr_scale: 0}]", r"groups\.0\.lr_scale: .*greater than 0"),
        ("optimizer.groups.pattern=a", "unknown field 'optimizer.groups.pattern'"),
    ],
)  # fmt: skip
def test_a_group_that_cannot_be_read_is_refused_in_one_sentence(item: str, sentence: str):
    with pytest.raises(JobError, match=sentence) as caught:
        load_job("train-digits", [item])
    assert "\n" not in str(caught.value)


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
            ways.append(steps(build_optimizer(spec, model.named_parameters()), model)[-1])
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


def test_an_unknown_optimizer_names_its_neighbor():
    with pytest.raises(JobError, match=r"unknown optimizer 'adamv'; .*did you mean adam"):
        check_optimizer(OptimizerSpec(name="adamv"))
