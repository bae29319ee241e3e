"""Predictions agree with the network, and need nothing but the checkpoint."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarray.data.parquet import read_images
from cifarray.errors import InputError
from cifarray.inference.predict import predict
from cifarray.training.checkpoint import Checkpoint
from tests.unit.inference.conftest import Trained


@pytest.fixture
def pictures(trained: Trained, tmp_path: Path) -> list[str]:
    """Files of the first test rows."""
    images = read_images(trained.store, trained.manifest, "test", range(20))
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[:, :, 0]).save(path)
    return [str(path) for path in paths]


def test_files_of_test_images_get_the_predictions_that_the_evaluation_gave(
    checkpoint: Checkpoint, trained: Trained, pictures: list[str]
):
    predictions = predict(checkpoint, pictures)
    expected = trained.predictions["test"]
    labels = [checkpoint.classes[k] for k in expected.predictions[:20]]
    assert [prediction.top5[0].label for prediction in predictions] == labels
    assert [prediction.top5[0].probability for prediction in predictions] == pytest.approx(
        expected.probabilities[:20].tolist(), abs=1e-6
    )


def test_the_five_most_probable_classes_come_in_order(checkpoint: Checkpoint, pictures: list[str]):
    for prediction in predict(checkpoint, pictures):
        probabilities = [guess.probability for guess in prediction.top5]
        assert len(probabilities) == 5
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) <= 1.0 + 1e-9
        assert prediction.changes == ()


def test_a_batch_and_single_images_get_the_same_answers(
    checkpoint: Checkpoint, pictures: list[str]
):
    together = predict(checkpoint, pictures)
    alone = [predict(checkpoint, [path])[0] for path in pictures]
    for a, b in zip(together, alone, strict=True):
        assert [guess.label for guess in a.top5] == [guess.label for guess in b.top5]
        assert np.allclose(
            [g.probability for g in a.top5], [g.probability for g in b.top5], atol=1e-6
        )


def test_one_bad_image_refuses_all(checkpoint: Checkpoint, pictures: list[str], tmp_path: Path):
    with pytest.raises(InputError, match=r"missing\.png"):
        predict(checkpoint, [*pictures, str(tmp_path / "missing.png")])


def test_a_pulled_checkpoint_predicts_without_ray_or_a_store(
    trained: Trained, pictures: list[str], tmp_path: Path
):
    code = (
        "import sys\n"
        "from cifarray.cli.main import main\n"
        "main(['predict', *sys.argv[1:], '--json'])\n"
    )
    watch = (
        "import atexit, sys\n"
        "def report():\n"
        "    used = {'ray', 'boto3', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "    sys.stderr.write(f'USED {sorted(used)}')\n"
        "atexit.register(report)\n"
    )
    arguments = [str(trained.checkpoint), pictures[0], "--store", "s3://nobody/there"]
    done = subprocess.run(
        [sys.executable, "-c", watch + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "USED []" in done.stderr
    assert '"top5"' in done.stdout
