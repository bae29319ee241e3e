"""Whatever is registered is tested: shapes, sizes, gradients, and that it can learn."""

import subprocess
import sys
from itertools import product
from typing import Literal, NamedTuple

import pytest
import torch
from torch import nn

from cifarray.errors import JobError
from cifarray.models.registry import (
    MODELS,
    build_model,
    check_model,
)
from cifarray.models.summary import describe_model
from cifarray.models.user_network import import_factory
from cifarray.spec.job import ModelSpec


class Published(NamedTuple):
    """A network's size as its listing, its paper or a calculation gives it."""

    count: int
    num_classes: int
    buffers: int
    """Running statistics: two per channel of each BatchNorm."""
    counted_by: Literal["torch", "keras"] = "torch"
    """torch's `parameters()` leave running statistics out; Keras' count holds them."""


PUBLISHED = {
    "cnn3": Published(1_193_636, 100, 0),
    "tflearn_cnn": Published(2_205_284, 100, 0),
    "cnn8": Published(1_316_356, 100, 0),
    "alexnet32": Published(30_351_844, 100, 0),
    "fashion_cnn": Published(1_813_050, 10, 1_344, "keras"),
    "bn_cnn_large": Published(5_655_498, 10, 7_680),
    "bn_cnn_small": Published(1_816_714, 10, 2_176),
    "lenet25": Published(24_197, 25, 0),
    "lenet25_bn_after": Published(24_241, 25, 44),
    "lenet25_bn_before": Published(24_241, 25, 44),
    # 456 and 2,416 in the convolutions, 20,050, 2,550 and 1,275 in the dense layers
    "lenet25_fc3": Published(26_747, 25, 0),
    "lenet25_optimized": Published(599_725, 25, 992),
    "fast_cnn": Published(1_189_156, 100, 1_856),
    "resnet18": Published(11_220_132, 100, 9_600),
    "resnet50": Published(23_705_252, 100, 53_120),
    "wide_resnet28_10": Published(36_536_884, 100, 17_952),
}
"""For 32x32 RGB images, those of fashion_cnn for 28x28 gray ones."""
RIGHT_BEFORE_BATCHNORM = {"lenet25_bn_before": {"features.0.bias", "features.4.bias"}}
"""Biases that BatchNorm takes out again while it normalizes by the batch's own mean."""
LAYERS_PER_RATE = {"wide_resnet28_10": 12}
"""Networks that use one rate in several layers."""
LR = {"alexnet32": 5e-4}
"""Networks whose wide layers without BatchNorm learn better in smaller steps."""
NOT_ZERO = 1e-6
"""Rounding leaves gradients of 1e-7 where there are none, and the smallest real ones are 1e-3."""


def smaller_and_larger(limit: int) -> list[object]:
    """Every network; those of more parameters than `limit` are slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(name, marks=slow if PUBLISHED[name].count > limit else (), id=name)
        for name in PUBLISHED
    ]


def smallest_shape(name: str) -> tuple[int, int, int]:
    """Gray images that are quick to compute with."""
    side = max(MODELS[name].min_size, 8)
    return side, side, 1


def spec_without_dropout(name: str) -> ModelSpec:
    rates = MODELS[name].dropouts
    return ModelSpec(name=name, dropout=0.0) if len(rates) == 1 else no_rates(name)


def no_rates(name: str) -> ModelSpec:
    return ModelSpec(name=name, dropouts=tuple(0.0 for _ in MODELS[name].dropouts))


def dropout_rates(spec: ModelSpec) -> list[float]:
    with torch.device("meta"):
        model = build_model(spec, 3, MODELS[spec.name].input_shape)
    return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]


def logits_shape(name: str, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Of a batch of two, from layers that compute shapes alone."""
    height, width, channels = shape
    with torch.device("meta"):
        model = build_model(ModelSpec(name=name), 7, shape)
        return tuple(model(torch.empty(2, channels, height, width)).shape)


@pytest.mark.parametrize(("name", "shape"), product(MODELS, ((32, 32, 3), (28, 28, 1))))
def test_a_network_gives_one_row_of_logits_per_image(name: str, shape: tuple[int, int, int]):
    assert logits_shape(name, shape) == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_takes_every_size_from_its_smallest_on(name: str):
    smallest = MODELS[name].min_size
    for size in ((smallest, smallest), (smallest, smallest + 9), (smallest + 1, 64)):
        assert logits_shape(name, (*size, 3)) == (2, 7)


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.min_size > 1])
def test_an_image_smaller_than_a_network_can_take_is_refused(name: str):
    smallest = MODELS[name].min_size
    shape = (smallest - 1, smallest + 1, 3)
    sentence = (
        f"^{name} takes images of at least {smallest}x{smallest} pixels, not "
        f"{shape[0]}x{shape[1]}; choose another model, or set preprocess.resize$"
    )
    with pytest.raises(JobError, match=sentence):
        check_model(ModelSpec(name=name), shape)
    factory = import_factory(MODELS[name].factory)
    with torch.device("meta"):
        model = factory(num_classes=7, in_channels=3, image_size=shape[:2])
        with pytest.raises(RuntimeError):
            model(torch.empty(2, 3, *shape[:2]))


@pytest.mark.parametrize("name", MODELS)
def test_a_network_has_as_many_parameters_as_published(name: str):
    published = PUBLISHED[name]
    described = describe_model(ModelSpec(name=name), published.num_classes)
    total, trainable, buffers = described["parameters"].values()
    counted = total + buffers if published.counted_by == "keras" else total
    assert (counted, buffers) == (published.count, published.buffers)
    assert trainable == total
    assert described["input_shape"] == ([28, 28, 1] if name == "fashion_cnn" else [32, 32, 3])


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient_from_two_images(name: str):
    torch.manual_seed(0)
    height, width, channels = shape = smallest_shape(name)
    model = build_model(spec_without_dropout(name), 5, shape)
    logits = model(torch.randn(2, channels, height, width))
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    taken_out = {
        parameter_name
        for parameter_name, parameter in model.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() < NOT_ZERO
    }
    assert taken_out == RIGHT_BEFORE_BATCHNORM.get(name, set())


@pytest.mark.parametrize("name", RIGHT_BEFORE_BATCHNORM)
def test_a_bias_right_before_batchnorm_gets_a_gradient_with_running_statistics(name: str):
    torch.manual_seed(0)
    height, width, channels = shape = smallest_shape(name)
    model = build_model(spec_without_dropout(name), 5, shape).eval()
    logits = model(torch.randn(2, channels, height, width))
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    parameters = dict(model.named_parameters())
    for bias in RIGHT_BEFORE_BATCHNORM[name]:
        assert parameters[bias].grad is not None
        assert parameters[bias].grad.abs().max() > NOT_ZERO


@pytest.mark.parametrize("name", smaller_and_larger(3_000_000))
def test_a_network_learns_one_batch_by_heart(name: str):
    torch.manual_seed(0)
    height, width, channels = shape = smallest_shape(name)
    model = build_model(spec_without_dropout(name), 10, shape)
    images, labels = torch.randn(8, channels, height, width), torch.randint(0, 10, (8,))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR.get(name, 2e-3))
    for _ in range(60):
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        if loss.item() < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert (logits.argmax(1) == labels).all()


def test_every_registered_network_is_in_the_table_of_sizes():
    assert set(PUBLISHED) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_dropout_sets_the_last_of_a_networks_rates(name: str):
    own, times = MODELS[name].dropouts, LAYERS_PER_RATE.get(name, 1)
    assert dropout_rates(ModelSpec(name=name)) == [*own] * times
    assert dropout_rates(ModelSpec(name=name, dropout=0.33)) == [*own[:-1], 0.33] * times


@pytest.mark.parametrize("name", [n for n, entry in MODELS.items() if len(entry.dropouts) > 1])
def test_dropouts_set_all_of_a_networks_rates_in_order(name: str):
    rates = tuple(0.05 * i for i in range(1, len(MODELS[name].dropouts) + 1))
    assert dropout_rates(ModelSpec(name=name, dropouts=rates)) == [*rates]


@pytest.mark.parametrize("name", smaller_and_larger(20_000_000))
def test_the_same_seed_builds_the_same_weights(name: str):
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(ModelSpec(name=name), 3, smallest_shape(name))

    first, same, other = build(1), build(1), build(2)
    for key, weights in first.state_dict().items():
        assert torch.equal(weights, same.state_dict()[key])
    weights = list(zip(first.parameters(), other.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "resnet81"}, "unknown model 'resnet81'; choose from: alexnet32, bn_"),
        ({"name": "resnet18", "dropouts": (0.1,)}, "does not use model.dropouts; it uses"),
        (
            {"name": "cnn3", "dropouts": (0.1, 0.2)},
            r"must be 3 rates, as in \[0.1, 0.25, 0.5\], not",
        ),
        ({"name": "cnn3", "args": {"width": 2}}, "model cnn3 does not use model.args"),
        ({"name": "no_such.module:net"}, "no module no_such.module"),
        ({"name": "torch.nn:"}, "not of the form package.module:factory"),
        ({"name": "torch.nn:Linear", "args": {"num_classes": 3}}, "may not contain num_classes"),
    ],
)
def test_a_wrong_model_is_refused_in_one_sentence(fields: dict[str, object], sentence: str):
    with pytest.raises(JobError, match=sentence):
        check_model(ModelSpec.model_validate(fields))


def test_models_optimizers_and_schedules_are_checked_without_torch():
    code = (
        "import sys\n"
        "from cifarray.models.registry import check_model\n"
        "from cifarray.training.optimizers import check_optimizer\n"
        "from cifarray.training.schedules import build_schedule\n"
        "from cifarray.spec.job import ModelSpec, OptimizerSpec, ScheduleSpec\n"
        "check_model(ModelSpec(name='cnn3'))\n"
        "check_optimizer(OptimizerSpec())\n"
        "build_schedule(ScheduleSpec(name='cosine'), 10, 5)(3)\n"
        "assert not {'torch', 'numpy', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
