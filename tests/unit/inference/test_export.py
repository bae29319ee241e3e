"""Exported files say what torch says, for any batch size, and know their classes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifarray.errors import InputError, WorkError
from cifarray.inference.export import FORMATS, TOLERANCE, Predictor, default_output, export
from cifarray.training.checkpoint import Checkpoint

SIZES = (1, 2, 7)


def images_NHWC(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 8, 8, 1), dtype=torch.uint8, generator=generator)


def torchs(checkpoint: Checkpoint, images: Tensor) -> Tensor:
    with torch.no_grad():
        return Predictor(checkpoint)(images)


def check_description(about: dict[str, str], checkpoint: Checkpoint) -> None:
    assert tuple(json.loads(about["classes"])) == checkpoint.classes
    assert json.loads(about["input"])["shape"] == ["batch", 8, 8, 1]
    assert json.loads(about["preprocess"])["mean"] == list(checkpoint.mean)
    assert json.loads(about["dataset"]) == checkpoint.dataset
    assert json.loads(about["model"])["name"] == "cnn3"


def test_the_predictor_normalises_and_gives_probabilities(checkpoint: Checkpoint):
    images = images_NHWC(3)
    with torch.no_grad():
        logits = checkpoint.model(checkpoint.preprocess(images.permute(0, 3, 1, 2)))
    assert torch.allclose(torchs(checkpoint, images), logits.softmax(1))
    assert torchs(checkpoint, images).sum(1).tolist() == pytest.approx([1.0] * 3)


def test_onnxruntime_and_torch_agree(checkpoint: Checkpoint, tmp_path: Path):
    import onnxruntime

    export(checkpoint, "onnx", tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for n in SIZES:
        images = images_NHWC(n)
        (theirs,) = session.run(["probabilities"], {"images": images.numpy()})
        assert theirs.shape == (n, 10)
        assert np.abs(theirs - torchs(checkpoint, images).numpy()).max() <= TOLERANCE == 1e-4
    check_description(session.get_modelmeta().custom_metadata_map, checkpoint)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_a_torch_export_gives_torchs_own_probabilities(checkpoint: Checkpoint, tmp_path: Path):
    export(checkpoint, "torch-export", tmp_path / "net.pt2")
    about = {"cifarray.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=about)
    for n in SIZES:
        images = images_NHWC(n)
        with torch.no_grad():
            theirs = program.module()(images)
        assert torch.allclose(theirs, torchs(checkpoint, images), atol=1e-6)
    check_description(json.loads(about["cifarray.json"]), checkpoint)


def test_safetensors_hold_every_weight_and_the_description(checkpoint: Checkpoint, tmp_path: Path):
    from safetensors import safe_open

    export(checkpoint, "safetensors", tmp_path / "net.safetensors")
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check_description(file.metadata(), checkpoint)
    expected = checkpoint.model.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(
    checkpoint: Checkpoint, tmp_path: Path
):
    path = tmp_path / "net.safetensors"
    path.write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        export(checkpoint, "safetensors", path)
    assert path.read_text() == "mine"
    export(checkpoint, "safetensors", path, replace=True)
    assert path.stat().st_size > 4


def test_an_unknown_format_and_a_place_that_cannot_be_written_are_refused(
    checkpoint: Checkpoint, tmp_path: Path
):
    with pytest.raises(InputError, match=r"unknown format 'onxx'.*did you mean onnx"):
        export(checkpoint, "onxx", tmp_path / "net")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        export(checkpoint, "safetensors", tmp_path / "file" / "net")


class AsksItsInput(nn.Module):
    """A network whose way depends on the pixels, which no graph can hold."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits of one kind or the other."""
        logits = images_NCHW.flatten(1)[:, :10]
        return logits if images_NCHW.sum().item() > 0 else -logits


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_network_that_cannot_be_exported_says_so_in_one_sentence(
    checkpoint: Checkpoint, tmp_path: Path, form: str
):
    asking = replace(checkpoint, model=AsksItsInput())
    with pytest.raises(WorkError, match="cannot be exported as") as caught:
        export(asking, form, tmp_path / "net")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_jobs_name_cannot_lead_the_default_file_elsewhere(checkpoint: Checkpoint):
    job = checkpoint.job.model_copy(update={"name": "../../etc/x"})
    for form in FORMATS:
        path = default_output(replace(checkpoint, job=job), form)
        assert path.parent == Path()
        assert path.suffix == FORMATS[form].suffix
