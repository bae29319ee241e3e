"""What a network of one's own has to be before anything is trained: tried as it will be used."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cifarray.errors import JobError
from cifarray.models.user_network import check_network, check_unused, unused_parameters

SHAPE = (8, 8, 1)


class Net(nn.Module):
    """Two heads, of which a way to combine them gives the output."""

    def __init__(self, combine: Callable[["Net", Tensor], object]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1)
        )
        self.head, self.spare = nn.Linear(4, 10), nn.Linear(4, 10)
        self.combine = combine

    def forward(self, images_NCHW: Tensor) -> object:
        return self.combine(self, self.body(images_NCHW).flatten(1))


def both_in_training(net: Net, seen: Tensor) -> object:
    return (net.head(seen), net.spare(seen)) if net.training else net.head(seen)


def head_alone(net: Net, seen: Tensor) -> object:
    return net.head(seen)


def their_sum(net: Net, seen: Tensor) -> object:
    return net.head(seen) + net.spare(seen)


def test_a_tuple_in_training_alone_is_refused():
    with pytest.raises(JobError, match=r"not tuple in training mode"):
        check_network("own:net", Net(both_in_training), 10, SHAPE)


def test_an_error_in_training_alone_is_refused_with_its_words():
    def fail(net: Net, seen: Tensor) -> object:
        return net.head(seen[:, :3] if net.training else seen)

    with pytest.raises(JobError, match="1x8x8 in training mode: RuntimeError"):
        check_network("own:net", Net(fail), 10, SHAPE)


def test_trying_a_network_changes_neither_its_buffers_nor_torchs_random_state():
    torch.manual_seed(3)
    network = Net(their_sum)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    check_network("own:net", network, 10, SHAPE)
    assert unused_parameters(network, 10, SHAPE) == []
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
    assert network.training


def test_a_layer_that_forward_does_not_use_is_named_and_refused_for_several_workers():
    with pytest.raises(JobError, match=r"not used .*: spare\.weight, spare\.bias; with 2 workers"):
        check_unused("own:net", Net(head_alone), 10, SHAPE, workers=2)


def test_on_one_worker_it_is_a_remark(capsys: pytest.CaptureFixture[str]):
    check_unused("own:net", Net(head_alone), 10, SHAPE, workers=1)
    assert "spare.weight, spare.bias" in capsys.readouterr().out


def test_parameters_that_do_not_learn_may_stay_unused():
    network = Net(head_alone)
    network.spare.requires_grad_(False)
    check_unused("own:net", network, 10, SHAPE, workers=2)
