"""Weights are read without running anything, and fit a network whole, or but for its head."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cifarray.errors import JobError
from cifarray.models.pretrained import load_pretrained, match_weights, read_weights
from cifarray.models.registry import build_model
from cifarray.spec.job import ModelSpec

TINY = "timm/test_resnet"


def network(seed: int = 0, classes: int = 5, **fields: Any) -> nn.Module:
    torch.manual_seed(seed)
    spec = ModelSpec.model_validate({"name": TINY, **fields})
    return build_model(spec, classes, (32, 32, 3))


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(params=["safetensors", "state dict", "checkpoint", "wrapped"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A file in each of the forms that are read, and what is in it."""
    weights = network().state_dict()
    path = tmp_path / "weights"
    match request.param:
        case "safetensors":
            save_file(weights, path)
        case "state dict":
            torch.save(weights, path)
        case "checkpoint":
            torch.save({"model": weights, "epoch": 3, "history": [{"lr": 0.1}]}, path)
        case "wrapped":
            torch.save({"state_dict": weights, "arch": "resnet"}, path)
    return path, weights


def test_a_file_gives_its_weights_in_every_form(file: tuple[Path, dict[str, Tensor]]):
    path, weights = file
    assert same(read_weights(path, "my weights"), weights)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "malicious",
            "contains more than tensors, or is damaged; give safetensors, or a state dict",
        ),
        ("pickle", "contains no readable weights .*; give safetensors, or a state dict written"),
        ("cut", "contains more than tensors, or is damaged"),
        ("text", "contains no readable weights"),
        ("numbers", r"weights mine are not a state dict \(only names and tensors\)"),
        ("nothing", "weights mine are not a state dict"),
        ("folder", "weights mine cannot be read: Is a directory"),
    ],
)
def test_what_is_no_state_dict_is_refused_and_never_run(
    tmp_path: Path, content: str, sentence: str
):
    path, trace = tmp_path / "weights", tmp_path / "trace"
    match content:
        case "malicious":
            torch.save({"model": Malicious(trace)}, path)
        case "pickle":
            path.write_bytes(pickle.dumps(Malicious(trace)))
        case "cut":
            torch.save(network().state_dict(), path)
            path.write_bytes(path.read_bytes()[:9000])
        case "text":
            path.write_text("these are no weights")
        case "numbers":
            torch.save({"a.weight": 1.0}, path)
        case "nothing":
            torch.save({}, path)
        case "folder":
            path.mkdir()
    with pytest.raises(JobError, match=sentence) as caught:
        read_weights(path, "mine")
    assert not trace.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.zeros(1).expand(10**12), "weights mine are larger than 8 GiB in memory"),
        (
            torch.zeros(4).to_sparse(),
            "contain a.weight as torch.float32, torch.sparse_coo; give dense",
        ),
        (torch.zeros(4, dtype=torch.complex128), "contain a.weight as torch.complex128"),
        (torch.zeros(4, device="meta"), "contain a.weight as"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_tensors_that_no_network_of_ours_has_are_refused(
    tmp_path: Path, value: Tensor, sentence: str
):
    torch.save({"a.weight": value}, tmp_path / "weights.pt")
    with pytest.raises(JobError, match=sentence):
        read_weights(tmp_path / "weights.pt", "mine")


def test_weights_of_the_same_network_are_all_taken(tmp_path: Path):
    weights = network(seed=1).state_dict()
    torch.save(weights, tmp_path / "weights")
    other = network(seed=2)
    spec = ModelSpec(name=TINY, weights="somewhere")
    load_pretrained(other, spec, tmp_path / "weights")
    assert same(other.state_dict(), weights)


@pytest.mark.parametrize("other", [{"classes": 7}, {"head": 9}, {"head": 9, "classes": 7}])
def test_of_a_network_with_another_head_the_head_stays_fresh_as_a_whole(other: dict[str, Any]):
    weights, target = network(seed=1).state_dict(), network(seed=2, **other)
    match = match_weights(target, TINY, weights, "mine")
    head = {key for key in target.state_dict() if key.startswith("head.")}
    assert set(match.fresh) == head
    assert match.weights.keys() == target.state_dict().keys() - head
    assert all(torch.equal(tensor, weights[key]) for key, tensor in match.weights.items())


@pytest.mark.parametrize("name", ["cnn3", "resnet18", "lenet25_fc3", "bn_cnn_small"])
def test_a_registered_network_takes_weights_of_other_classes_but_for_its_last_layer(name: str):
    spec, shape = ModelSpec(name=name), (32, 32, 3)
    ten, five = build_model(spec, 10, shape), build_model(spec, 5, shape)
    assert match_weights(ten, name, build_model(spec, 10, shape).state_dict(), "m").fresh == ()
    match = match_weights(five, name, ten.state_dict(), "mine")
    assert [key.rpartition(".")[2] for key in match.fresh] == ["weight", "bias"]
    last = list(five.state_dict())[-1].rpartition(".")[0]
    assert {key.rpartition(".")[0] for key in match.fresh} == {last}


def test_a_file_as_timm_publishes_it_is_taken_but_for_its_classifier():
    import timm

    published = timm.create_model("test_resnet", num_classes=1000)
    target = network()
    match = match_weights(target, TINY, published.state_dict(), "model.safetensors")
    assert set(match.fresh) == {"head.1.weight", "head.1.bias"}
    weights = published.state_dict()
    for key, tensor in match.weights.items():
        assert torch.equal(tensor, weights[key.removeprefix("backbone.")])


def test_inceptions_second_classifier_is_passed_over():
    import timm

    with torch.device("meta"):
        published = timm.create_model("inception_v3", aux_logits=True)
        target = build_model(ModelSpec(name="timm/inception_v3"), 5, (75, 75, 3))
        match = match_weights(target, "timm/inception_v3", published.state_dict(), "mine")
    assert len(match.fresh) == 2


def test_counters_of_batches_may_be_missing():
    weights = network().state_dict()
    kept = {key: w for key, w in weights.items() if not key.endswith("num_batches_tracked")}
    assert match_weights(network(), TINY, kept, "mine").fresh == ()


def test_weights_of_another_network_are_refused_with_the_first_keys_that_differ():
    weights = network().state_dict()
    lacking = {key: w for key, w in weights.items() if ".layer4." not in key}
    with pytest.raises(JobError, match=r"weights mine do not fit network timm/test_resnet: missi"):
        match_weights(network(), TINY, lacking, "mine")
    more = weights | {"backbone.extra.weight": torch.zeros(2)}
    with pytest.raises(JobError, match=r": unexpected backbone\.extra\.weight; give those of timm"):
        match_weights(network(), TINY, more, "mine")
    key = "backbone.layer1.0.conv1.weight"
    shape = list(weights[key].shape)
    other = weights | {key: torch.zeros(3, 3)}
    with pytest.raises(JobError, match="of another shape") as caught:
        match_weights(network(), TINY, other, "mine")
    assert f"{key} [3, 3], not {shape}" in str(caught.value)
    foreign = build_model(ModelSpec(name="resnet18"), 5, (32, 32, 3)).state_dict()
    with pytest.raises(JobError, match=r"missing .* and \d+ more; unexpected .* and \d+ more"):
        match_weights(network(), TINY, foreign, "mine")


def test_a_job_that_names_weights_does_not_begin_without_them():
    with pytest.raises(JobError, match=r"has no copy of model\.weights run:a; submit it again"):
        load_pretrained(network(), ModelSpec(name=TINY, weights="run:a"), None)
