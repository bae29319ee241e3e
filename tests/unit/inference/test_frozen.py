"""A head that learned from cached features is evaluated and exported with its backbone."""

from pathlib import Path

import numpy as np
import onnxruntime

from cifarray.data.parquet import read_images
from cifarray.inference.export import export
from cifarray.training.checkpoint import load_checkpoint, write_checkpoint
from tests.digit_sessions import Digits
from tests.frozen_sessions import Pretrained


def test_an_exported_network_says_of_images_what_the_session_said_of_features(tmp_path: Path):
    pretrained = Pretrained.on(Digits.prepared_in(tmp_path / "store"), tmp_path / "pretrained")
    cached = {"frozen": True, "features": "cached"}
    session = pretrained.trainer(pretrained.job(model=cached, preprocess={"resize": 16}))
    *_, record = session.records()
    write_checkpoint(tmp_path / "trained", session.state(), record)
    said = session.evaluate(session.state()["model"])
    assert said is not None
    export(load_checkpoint(tmp_path / "trained"), "onnx", tmp_path / "network.onnx")

    rows = said["test"].row_ids[:50].astype(np.int64)
    images_NHWC = read_images(pretrained.digits.store, pretrained.digits.manifest, "test", rows)
    network = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    (probabilities_NK,) = network.run(None, {"images": images_NHWC})
    found = np.asarray(probabilities_NK)
    assert found.argmax(1).tolist() == said["test"].predictions[:50].tolist()
    assert np.allclose(found.max(1), said["test"].probabilities[:50], atol=1e-4)
