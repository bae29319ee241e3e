"""Whatever is registered is tested: shapes, sizes, gradients, and that it can learn."""

import subprocess
import sys
from itertools import product

import pytest
import torch
from torch import nn

from cifarray.errors import JobError
from cifarray.models.registry import (
    MODELS,
    build_model,
    check_model,
    count_buffers,
    count_parameters,
)
from cifarray.spec.job import ModelSpec

SHAPES = ((32, 32, 3), (28, 28, 1), (8, 8, 1))
PUBLISHED = {"cnn3": (1_193_636, 0), "resnet18": (11_220_132, 9_600)}
"""Parameters and running statistics for 100 classes of 32x32 RGB images."""


def spec_without_dropout(name: str) -> ModelSpec:
    rates = MODELS[name].dropouts
    return ModelSpec(name=name, dropout=0.0) if len(rates) == 1 else no_rates(name)


def no_rates(name: str) -> ModelSpec:
    return ModelSpec(name=name, dropouts=tuple(0.0 for _ in MODELS[name].dropouts))


def dropout_rates(model: nn.Module) -> list[float]:
    return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize(("name", "shape"), product(MODELS, SHAPES))
def test_a_network_gives_one_row_of_logits_per_image(name: str, shape: tuple[int, int, int]):
    height, width, channels = shape
    model = build_model(ModelSpec(name=name), 7, shape).eval()
    with torch.no_grad():
        logits = model(torch.zeros(2, channels, height, width))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_has_as_many_parameters_as_published(name: str):
    with torch.device("meta"):
        model = build_model(ModelSpec(name=name), 100, (32, 32, 3))
    assert (count_parameters(model), count_buffers(model)) == PUBLISHED[name]


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient_from_two_images(name: str):
    torch.manual_seed(0)
    model = build_model(spec_without_dropout(name), 5, (8, 8, 1))
    logits = model(torch.randn(2, 1, 8, 8))
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(
    "name", ["cnn3", pytest.param("resnet18", marks=pytest.mark.slow)], ids=str
)
def test_a_network_learns_one_batch_by_heart(name: str):
    torch.manual_seed(0)
    model = build_model(spec_without_dropout(name), 10, (8, 8, 1))
    images, labels = torch.rand(32, 1, 8, 8), torch.randint(0, 10, (32,))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert (model(images).argmax(1) == labels).all()


def test_every_registered_network_is_in_the_overfitting_test():
    assert set(PUBLISHED) == set(MODELS) == {"cnn3", "resnet18"}


@pytest.mark.parametrize("name", MODELS)
def test_dropout_sets_the_rate_before_the_last_layer(name: str):
    own = MODELS[name].dropouts
    assert dropout_rates(build_model(ModelSpec(name=name), 3, (8, 8, 1))) == list(own)
    changed = build_model(ModelSpec(name=name, dropout=0.33), 3, (8, 8, 1))
    assert dropout_rates(changed) == [*own[:-1], 0.33]


def test_dropouts_set_all_three_rates_of_cnn3():
    model = build_model(ModelSpec(name="cnn3", dropouts=(0.2, 0.3, 0.4)), 3, (8, 8, 1))
    assert dropout_rates(model) == [0.2, 0.3, 0.4]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_builds_the_same_weights(name: str):
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(ModelSpec(name=name), 3, (8, 8, 1))

    first, same, other = build(1), build(1), build(2)
    for key, weights in first.state_dict().items():
        assert torch.equal(weights, same.state_dict()[key])
    weights = list(zip(first.parameters(), other.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "resnet81"}, "unknown model 'resnet81'; choose from: cnn3, resnet18"),
        ({"name": "resnet18", "dropouts": (0.1,)}, "does not use model.dropouts; it uses"),
        ({"name": "cnn3", "dropouts": (0.1, 0.2)}, r"are 3 rates, as in \[0.1, 0.25, 0.5\], not"),
        ({"name": "cnn3", "args": {"width": 2}}, "model cnn3 does not use model.args"),
        ({"name": "no_such.module:net"}, "no module no_such.module"),
        ({"name": "torch.nn:"}, "not of the form package.module:factory"),
        ({"name": "torch.nn:Linear", "args": {"num_classes": 3}}, "may not hold num_classes"),
    ],
)
def test_a_wrong_model_is_refused_in_one_sentence(fields: dict[str, object], sentence: str):
    with pytest.raises(JobError, match=sentence):
        check_model(ModelSpec.model_validate(fields))


def test_an_image_smaller_than_cnn3_can_pool_is_refused():
    with pytest.raises(JobError, match="at least 8x8 pixels, not 7x9"):
        check_model(ModelSpec(name="cnn3"), (7, 9, 3))


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
