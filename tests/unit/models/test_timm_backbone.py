"""timm's networks under names of ours: counts, sizes, heads, and a backbone that never learns."""

import pytest
import timm
import torch
from torch import nn

from cifarray.errors import JobError
from cifarray.models.registry import build_model, check_model
from cifarray.models.summary import count_parameters, describe_model
from cifarray.models.timm_backbone import check_size, imagenet_numbers, native_shape
from cifarray.models.timm_classifier import TimmClassifier
from cifarray.spec.job import ModelSpec

TINY = "timm/test_resnet"
"""timm's own for tests: small, with BatchNorm."""
WITHOUT_CLASSIFIER = {
    "timm/mobilenetv1_100": (4_231_976 - 1_025_000, 1024),
    "timm/mobilenetv2_100": (3_504_872 - 1_281_000, 1280),
    "timm/resnet50": (25_557_032 - 2_049_000, 2048),
    "timm/inception_v3": (23_834_568 - 2_049_000, 2048),
    "timm/densenet121": (7_978_856 - 1_025_000, 1024),
    "timm/inception_resnet_v2": (55_843_464 - 1_537_000, 1536),
}
"""Weights that timm counts less those of the layer for 1,000 classes, and that layer's inputs."""
SMALLEST = {"timm/inception_v3": 75, "timm/inception_resnet_v2": 75, "timm/densenet121": 29}


def tiny(**fields: object) -> TimmClassifier:
    """A small network with weights that depend on nothing."""
    torch.manual_seed(0)
    spec = ModelSpec.model_validate({"name": TINY, **fields})
    network = build_model(spec, 5, (32, 32, 3))
    assert isinstance(network, TimmClassifier)
    return network


@pytest.mark.parametrize("name", WITHOUT_CLASSIFIER)
def test_a_network_has_timms_weights_and_those_of_our_head(name: str):
    backbone, outputs = WITHOUT_CLASSIFIER[name]
    one_layer = describe_model(ModelSpec(name=name), 200)
    assert one_layer["parameters"]["total"] == backbone + (outputs + 1) * 200
    two_layers = describe_model(ModelSpec(name=name, head=500), 200)
    assert two_layers["parameters"]["total"] == backbone + (outputs + 1) * 500 + 501 * 200


@pytest.mark.parametrize("name", WITHOUT_CLASSIFIER)
def test_a_network_is_described_for_the_images_that_its_weights_saw(name: str):
    described = describe_model(ModelSpec(name=name), 10)
    height, width, channels = described["input_shape"]
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    assert (channels, height, width) == config.input_size
    statistics = [b.numel() for n, b in _on_meta(name).named_buffers() if "running" in n]
    assert described["parameters"]["buffers"] == sum(statistics)


def _on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = timm.create_model(name.removeprefix("timm/"), num_classes=0)
    return network


@pytest.mark.parametrize("name", [*WITHOUT_CLASSIFIER, TINY, "timm/vit_tiny_patch16_224"])
def test_imagenet_pixels_are_scaled_as_timm_says(name: str):
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    assert imagenet_numbers(name) == (config.mean, config.std)


@pytest.mark.parametrize("shape", [(32, 32, 3), (40, 24, 1)])
def test_any_size_and_gray_images_give_logits(shape: tuple[int, int, int]):
    height, width, channels = shape
    network = build_model(ModelSpec(name=TINY, head=7), 5, shape)
    assert network(torch.randn(2, channels, height, width)).shape == (2, 5)


def test_a_gray_image_is_seen_as_three_equal_channels():
    network = tiny().eval()
    gray = torch.randn(2, 1, 32, 32)
    assert torch.equal(network(gray), network(gray.repeat(1, 3, 1, 1)))


def test_a_head_is_one_layer_or_two_with_dropout_before_the_last():
    one, two = tiny(dropout=0.3).head, tiny(dropout=0.3, head=7).head
    assert [type(layer) for layer in one] == [nn.Dropout, nn.Linear]
    assert [type(layer) for layer in two] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [layer.p for layer in (one[0], two[2])] == [0.3, 0.3]
    assert (two[0].out_features, two[3].in_features, two[3].out_features) == (7, 7, 5)


def test_every_weight_gets_a_gradient_and_of_a_frozen_network_the_heads_alone():
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 3])
    for frozen in (False, True):
        network = tiny(frozen=frozen, weights="timm", head=7)
        nn.functional.cross_entropy(network(images), labels).backward()
        learns = {n for n, p in network.named_parameters() if p.grad is not None}
        everything = {n for n, _ in network.named_parameters()}
        assert learns == {n for n in everything if not frozen or n.startswith("head.")}


def test_a_network_learns_one_batch_by_heart():
    network = tiny()
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_a_frozen_backbone_stays_as_it_is_while_the_rest_is_in_training_mode():
    network = tiny(frozen=True, weights="timm", dropout=0.5)
    before = {name: buffer.clone() for name, buffer in network.backbone.named_buffers()}
    network.train()
    network(torch.randn(4, 3, 32, 32))
    assert network.training
    assert network.head.training
    assert not any(module.training for module in network.backbone.modules())
    for name, buffer in network.backbone.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_frozen_network_counts_what_learns():
    network = tiny(frozen=True, weights="timm")
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trainable == count_parameters(network.head) == (96 + 1) * 5


@pytest.mark.parametrize("name", SMALLEST)
def test_an_image_smaller_than_a_backbone_can_take_is_refused_with_the_smallest(name: str):
    side = SMALLEST[name]
    check_size(name, (side, side, 3))
    sentence = (
        f"^{name} takes images of at least {side}x{side} pixels, not {side - 1}x{side + 9}; "
        "choose another model, or set preprocess.resize$"
    )
    with pytest.raises(JobError, match=sentence):
        check_size(name, (side - 1, side + 9, 3))
    with torch.device("meta"), pytest.raises(RuntimeError):
        _on_meta(name).eval()(torch.empty(1, 3, side - 1, side + 9))


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/test_vit"])
def test_a_backbone_of_patches_says_which_size_it_was_made_for(name: str):
    check_size(name, native_shape(name))
    native = native_shape(name)[0]
    for side in (9, 257):
        sentence = f"of {native}x{native} pixels, not {side}x{side}; set .*resize={native}$"
        with pytest.raises(JobError, match=sentence):
            check_size(name, (side, side, 3))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "timm/resnet5"}, r"timm has no network 'resnet5'; did you mean resnet50 or "),
        ({"name": "timm/"}, r"timm has no network ''; it has \d+, among them timm/resnet50"),
        ({"name": "timm/resnet50."}, r"timm has no weights '' for timm/resnet50"),
        ({"name": "timm/resnet50.a9"}, r"timm has no weights 'a9' for timm/resnet50; .*a1_in1k"),
        ({"name": "timm/hf-hub:someone/net"}, "is not of the form package.module:factory"),
        ({"name": TINY, "dropouts": [0.1, 0.2]}, r"does not use model\.dropouts; it uses .*head"),
        ({"name": TINY, "args": {"a": 1}}, r"does not use model\.args; it uses"),
        ({"name": TINY, "frozen": True}, r"with model\.weights none its backbone would stay rand"),
        (
            {"name": TINY, "features": "cached", "weights": "timm"},
            r"model\.features cached .* set model\.frozen=true",
        ),
        (
            {"name": "timm/coatnet_0_224", "weights": "timm"},
            "timm publishes no weights for timm/co",
        ),
        ({"name": "cnn3", "weights": "timm"}, r"model\.weights timm is for timm's networks, but"),
        ({"name": "cnn3", "head": 9}, r"model cnn3 does not use model\.head; it uses .*weights"),
        ({"name": "cnn3", "frozen": True}, r"model cnn3 does not use model\.frozen"),
        ({"name": "resnet18", "features": "cached"}, r"resnet18 does not use model\.features"),
    ],
)
def test_what_a_network_cannot_do_is_refused_in_one_sentence(
    fields: dict[str, object], sentence: str
):
    with pytest.raises(JobError, match=sentence) as caught:
        check_model(ModelSpec.model_validate(fields))
    assert "\n" not in str(caught.value)


def test_images_of_two_channels_are_refused():
    with pytest.raises(JobError, match="test_resnet takes images of 1 or 3 channels, not 2"):
        check_model(ModelSpec(name=TINY), (32, 32, 2))
