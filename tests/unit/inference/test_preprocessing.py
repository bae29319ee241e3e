"""Evaluate, predict and every exported file apply what training applied, whitening above all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cifarray.data.parquet import read_images
from cifarray.inference.evaluate import evaluate
from cifarray.inference.export import FORMATS, TOLERANCE, WHITENING, export
from cifarray.inference.predict import predict
from cifarray.report.scores import Predictions
from cifarray.spec.job import Job
from cifarray.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from tests.unit.inference.conftest import JOB, Trained, open_session

SCALINGS: dict[str, dict[str, Any]] = {
    "whitening": {"normalize": "whitening", "epsilon": 1e-3, "resize": 10},
    "imagenet": {"normalize": "imagenet", "resize": 16},
    "signed": {"normalize": "signed"},
}
Case = tuple[Checkpoint, dict[str, Predictions]]


@pytest.fixture(scope="module", params=SCALINGS)
def case(
    request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """A checkpoint of digits scaled in one way, and what the session that wrote it says."""
    values = JOB.model_dump(mode="json") | {"preprocess": SCALINGS[request.param]}
    values["train"] |= {"epochs": 1}
    session = open_session(trained.store, trained.manifest, Job.model_validate(values))
    *_, record = session.records()
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, session.state(), record)
    predictions = session.evaluate(session.state()["model"])
    assert predictions is not None
    return load_checkpoint(folder), predictions


@pytest.fixture(scope="module")
def images(trained: Trained) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Test images in the order of their row ids, NHWC, as predictions are."""
    return read_images(trained.store, trained.manifest, "test", np.arange(360))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluate_says_what_the_training_said(case: Case, trained: Trained, split: str):
    checkpoint, predictions = case
    found = evaluate(checkpoint, trained.store, split=split).predictions
    expected = predictions[split]
    assert np.array_equal(found.row_ids, expected.row_ids)
    assert np.array_equal(found.predictions, expected.predictions)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-6)
    assert expected.top1 > 0.3  # it has learned something


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_an_exported_file_says_what_evaluate_says(
    case: Case, trained: Trained, images: Any, form: str, tmp_path: Path
):
    import onnxruntime

    checkpoint, _ = case
    evaluated = evaluate(checkpoint, trained.store).predictions
    path = tmp_path / f"net{FORMATS[form].suffix}"
    export(checkpoint, form, path)
    if form == "onnx":
        (found,) = onnxruntime.InferenceSession(path).run(None, {"images": images})
    else:
        with torch.no_grad():
            found = torch.export.load(path).module()(torch.from_numpy(images.copy())).numpy()
    assert np.abs(found.max(1) - evaluated.probabilities).max() <= TOLERANCE
    assert (found.argmax(1) == evaluated.predictions).mean() > 0.99


def test_predict_says_what_evaluate_says(case: Case, trained: Trained, images: Any, tmp_path: Path):
    checkpoint, _ = case
    evaluated = evaluate(checkpoint, trained.store).predictions
    paths = []
    for number, image in enumerate(images[:20]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image[..., 0]).save(paths[-1])
    for number, prediction in enumerate(predict(checkpoint, paths)):
        best = prediction.top5[0]
        assert best.label == checkpoint.classes[evaluated.predictions[number]]
        assert best.probability == pytest.approx(evaluated.probabilities[number], abs=1e-5)


def test_safetensors_hold_what_whitening_multiplies_by(case: Case, tmp_path: Path):
    from safetensors import safe_open

    checkpoint, _ = case
    export(checkpoint, "safetensors", tmp_path / "net")
    with safe_open(tmp_path / "net", "pt") as file:
        about = json.loads(file.metadata()["preprocess"])
        found = {name: file.get_tensor(name) for name in file.keys() if WHITENING in name}  # noqa: SIM118
    normalize = checkpoint.job.preprocess.normalize
    assert about == {
        **SCALINGS[normalize],
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
    }
    fitted = checkpoint.preprocess.whitening or {}
    assert found.keys() == {f"{WHITENING}{name}" for name in fitted}
    assert all(torch.equal(found[f"{WHITENING}{name}"], fitted[name]) for name in fitted)
