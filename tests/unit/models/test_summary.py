"""A network's layers add up to the network, and looking at them changes nothing."""

import pytest
import torch
from torch import nn

from cifarray.models.registry import MODELS, build_model
from cifarray.models.summary import count_parameters, describe_model, summarize
from cifarray.report.network import Layer, totals
from cifarray.spec.job import ModelSpec


class Odd(nn.Module):
    """Weights of its own, a shared and a frozen layer, one that nothing reaches, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3))
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.again = self.conv
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Linear(7, 2)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4, 5)
        self.fc.weight.requires_grad_(False)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        maps_NCHW = self.norm(self.conv(images_NCHW + self.offset[:, None, None]))
        logits_NK: torch.Tensor = self.fc(self.drop(maps_NCHW.mean((2, 3))))
        return logits_NK


def on_meta(name: str) -> tuple[list[Layer], nn.Module]:
    height, width, channels = MODELS[name].input_shape
    with torch.device("meta"):
        model = build_model(ModelSpec(name=name), 7, (height, width, channels))
        return summarize(model, torch.empty(1, channels, height, width)), model


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_parameters_are_the_networks(name: str):
    layers, model = on_meta(name)
    assert totals(layers) == (count_parameters(model), count_parameters(model))
    assert layers[-1].output_shape == (7,)
    assert len({layer.name for layer in layers}) == len(layers)


def test_shapes_and_details_are_those_of_the_layers():
    layers = {layer.name: layer for layer in on_meta("lenet25")[0]}
    first = layers["features.0"]
    assert (first.kind, first.detail, first.output_shape) == ("Conv2d", "5x5", (6, 28, 28))
    assert first.parameters == first.trainable == 6 * (3 * 5 * 5 + 1)
    assert layers["features.2"].detail == "2x2"


def test_residual_blocks_are_told_with_what_they_give():
    layers, _ = on_meta("resnet50")
    blocks = {layer.block for layer in layers if layer.block}
    assert len(blocks) == 3 + 4 + 6 + 3
    assert {block.kind for block in blocks} == {"Bottleneck"}
    strided = next(layer for layer in layers if layer.name == "blocks.3.conv2")
    assert strided.detail == "3x3, stride 2"
    assert strided.block is not None
    assert strided.block.output_shape == (512, 16, 16)
    assert layers[0].block is None


def test_shared_frozen_and_unused_weights_are_each_counted_once():
    model = Odd()
    layers = {layer.name: layer for layer in summarize(model, torch.zeros(1, 3, 9, 9))}
    assert totals(list(layers.values()))[0] == count_parameters(model)
    assert "again" not in layers
    assert layers[""].parameters == 3
    assert (layers["fc"].trainable, layers["fc"].learns) == (5, "in part")
    assert (layers["unused"].output_shape, layers["unused"].learns) == (None, "yes")
    assert (layers["conv"].detail, layers["drop"].detail) == ("3x3, stride 2", "p 0.3")


def test_a_network_that_was_looked_at_is_as_before():
    model = Odd().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    summarize(model, torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)))
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_description_lists_the_layers_where_it_is_asked_to():
    assert "layers" not in describe_model(ModelSpec(name="cnn3"), 10)
    described = describe_model(ModelSpec(name="cnn3"), 10, layers=True)
    layers = [Layer.from_mapping(values) for values in described["layers"]]
    assert totals(layers) == (described["parameters"]["total"],) * 2
