"""The example of docs/own-network.md: a network of one's own is swept, and predicts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cifarray.digests import content_sha256
from cifarray.models.user_code import pack_code
from tests.conftest import REPOSITORY
from tests.integration.command_line import CommandLine

PAGE = REPOSITORY / "docs" / "own-network.md"
JOB = "docs/examples/own_network/tune-conv-mixer.yaml"
CODE = "docs/examples/own_network/code"
SHORT = (
    "--set", "sweep.trials=2", "--set", "train.epochs=1", "--set", "dataset.rows=300",
)  # fmt: skip


@pytest.mark.slow
def test_the_example_of_the_docs_is_swept_and_predicts_with_its_code_alone(
    cifarray: CommandLine, tmp_path: Path
) -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").replace("\\\n", " ").split())
    assert f"cifarray submit {JOB} --code {CODE} --prepare" in page
    code = REPOSITORY / CODE
    run = cifarray.submit(REPOSITORY / JOB, "--code", code, "--prepare", *SHORT)
    report = cifarray.json("report", run.id)
    assert report["code"] == {"sha256": content_sha256(pack_code(code))}
    assert report["model"]["name"] == "conv_mixer:conv_mixer"
    assert {trial["state"] for trial in report["trials"]} == {"finished"}
    assert {trial["parameters"]["model.args.width"] for trial in report["trials"]} <= {16, 32}

    folder = cifarray.json("pull", run.id, tmp_path / "pulled")["folder"]
    picture = tmp_path / "digit.png"
    pixels = (load_digits().images[0] * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(picture)
    nowhere = cifarray.with_environment(
        CIFARRAY_STATE_DIR=str(tmp_path / "state"), CIFARRAY_STORE=str(tmp_path / "store")
    )
    (predicted,) = nowhere.json("predict", folder, picture, "--code", code)
    assert {guess["label"] for guess in predicted["top5"]} <= set("0123456789")
    assert sum(guess["probability"] for guess in predicted["top5"]) <= 1.0 + 1e-6

    refused = nowhere.type("predict", folder, picture)
    assert refused.code == 2
    assert "conv_mixer" in refused.sentence and "--code" in refused.sentence
