"""What is seen inside a network is what NumPy and torch make of the same tensors."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cifarray.training.tensorboard import BINS, Probe, histogram, look_inside
from tests.digit_sessions import Digits, same_weights, small_job, weights_of

DRAWN = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)


class Shared(nn.Module):
    """A network that calls one layer twice, changes tensors in place, and has a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 6), nn.Linear(6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.first.weight.requires_grad_(False)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        hidden_ND = self.relu(self.first(images_NCHW.flatten(1)))
        logits_NK: torch.Tensor = self.relu(self.second(hidden_ND))
        return logits_NK


@pytest.fixture
def probe() -> Probe:
    torch.manual_seed(0)
    return Probe(Shared().eval(), torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1]))


def test_buckets_hold_what_numpy_counts():
    found = histogram(torch.from_numpy(DRAWN))
    counts, edges = np.histogram(DRAWN, bins=BINS)
    assert found is not None
    assert found.bucket_counts == counts.tolist()
    assert np.allclose(found.bucket_limits, edges[1:])
    assert (found.min, found.max, found.num) == (DRAWN.min(), DRAWN.max(), DRAWN.size)
    assert found.sum == pytest.approx(DRAWN.sum(dtype=np.float64))
    assert found.sum_squares == pytest.approx(np.square(DRAWN, dtype=np.float64).sum())


@pytest.mark.parametrize("value", [0.0, 1.0, -3e8, 1e-30])
def test_equal_values_stand_in_one_bucket(value: float):
    found = histogram(torch.full((7,), value))
    assert found is not None
    assert sorted(found.bucket_counts)[-2:] == [0.0, 7.0]
    assert found.bucket_limits == sorted(found.bucket_limits)


def test_values_that_are_no_numbers_are_left_out():
    found = histogram(torch.tensor([1.0, torch.nan, 2.0, torch.inf, -torch.inf]))
    assert found is not None
    assert (found.num, found.min, found.max) == (2, 1.0, 2.0)
    assert histogram(torch.tensor([torch.nan])) is None
    assert histogram(torch.empty(0)) is None


def test_each_weight_has_its_values_and_each_that_learns_its_gradient(probe: Probe):
    seen = look_inside(probe).histograms
    named = dict(probe.network.named_parameters())
    assert {tag for tag in seen if tag.startswith("weights/")} == {f"weights/{n}" for n in named}
    for name, weight in named.items():
        assert seen[f"weights/{name}"].sum == pytest.approx(weight.double().sum().item())
    loss = cross_entropy(probe.network(probe.images_NCHW), probe.labels_N)
    loss.backward()
    assert "gradients/first.weight" not in seen
    for name in ("first.bias", "second.weight", "second.bias"):
        gradient = named[name].grad
        assert gradient is not None
        assert seen[f"gradients/{name}"].sum_squares == pytest.approx(
            gradient.square().sum().item(), rel=1e-5
        )


def test_a_layers_output_is_counted_before_the_next_one_writes_over_it(probe: Probe):
    seen = look_inside(probe).histograms
    shared = probe.network
    assert isinstance(shared, Shared)
    first = nn.functional.linear(
        probe.images_NCHW.flatten(1), shared.first.weight, shared.first.bias
    )
    assert seen["activations/first"].min == first.min().item() < 0.0
    assert seen["activations/relu"].min == 0.0
    assert seen["activations/relu"].num == 5 * 6
    assert seen["activations/relu/call_2"].num == 5 * 3


def test_sparsity_is_the_share_of_zeros(probe: Probe):
    with torch.no_grad():
        probe.network.get_parameter("second.weight")[0] = 0.0
    sparsity = look_inside(probe).sparsity
    assert sparsity["sparsity_of_weights/second.weight"] == pytest.approx(1 / 3)
    assert sparsity["sparsity_of_weights/first.weight"] == 0.0
    logits = probe.network(probe.images_NCHW)
    share = (logits == 0).double().mean().item()
    assert 0.0 < share < 1.0
    assert sparsity["sparsity_of_activations/relu/call_2"] == pytest.approx(share)
    assert not any(tag.startswith("sparsity_of_activations/first") for tag in sparsity)


def test_a_probe_is_a_copy_of_the_judged_network_and_validations_first_rows(digits: Digits):
    trainer = digits.trainer(small_job(train={"ema_decay": 0.5}))
    for _ in trainer.records():
        pass
    probe = Probe.of(trainer)
    judged = weights_of(trainer)
    assert same_weights(judged, dict(probe.network.state_dict()))
    rows = next(trainer.shard("validation").in_order(16))
    assert torch.equal(probe.labels_N, rows.labels_N)
    assert not probe.network.training
    for weight in probe.network.parameters():
        weight.data.zero_()
    assert same_weights(judged, weights_of(trainer))
