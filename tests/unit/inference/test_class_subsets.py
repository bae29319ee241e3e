"""A network of some classes is evaluated on their rows alone and answers with their names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarray.data.manifest import Manifest
from cifarray.data.parquet import read_images
from cifarray.errors import InputError
from cifarray.inference.evaluate import evaluate
from cifarray.inference.export import describe, export
from cifarray.inference.predict import predict
from cifarray.report.scores import Predictions
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix, latest_key, manifest_key
from cifarray.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from tests.unit.inference.conftest import JOB, Trained, open_session

NAMES = ("8", "3", "1")
OTHER_DIGEST = "f" * 64
Subset = tuple[Checkpoint, dict[str, Predictions]]


@pytest.fixture(scope="module")
def subset(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Subset:
    """The network of three digits from its folder, and what its session said of each split."""
    job = JOB.model_copy(update={"dataset": JOB.dataset.model_copy(update={"classes": NAMES})})
    session = open_session(trained.store, trained.manifest, Job.model_validate(job.model_dump()))
    *_, record = session.records()
    folder = tmp_path_factory.mktemp("subset")
    write_checkpoint(folder, session.state(), record)
    predictions = session.evaluate(session.state()["model"])
    assert predictions is not None
    return load_checkpoint(folder), predictions


def put(store: Store, manifest: Manifest, classes: tuple[str, ...]) -> None:
    """Put the manifest into a store under another digest, with other names of classes."""
    other = manifest.model_copy(update={"digest": OTHER_DIGEST, "classes": classes})
    store.write(manifest_key("digits", OTHER_DIGEST), other.model_dump_json().encode())
    store.write(latest_key("digits"), OTHER_DIGEST.encode())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_gets_the_figures_of_the_training(subset: Subset, trained: Trained, split: str):
    checkpoint, predictions = subset
    found = evaluate(checkpoint, trained.store, split=split).predictions
    assert np.array_equal(found.row_ids, predictions[split].row_ids)
    assert np.array_equal(found.labels, predictions[split].labels)
    assert np.array_equal(found.predictions, predictions[split].predictions)
    assert set(found.labels) == {0, 1, 2}


def test_another_digest_gives_the_test_rows_of_the_same_classes(
    subset: Subset, trained: Trained, tmp_path: Path
):
    checkpoint, predictions = subset
    store, manifest = Store.open(str(tmp_path)), trained.manifest
    here, there = (dataset_prefix("digits", d) for d in (manifest.digest, OTHER_DIGEST))
    for file in manifest.splits["test"].files:
        store.write(f"{there}/{file.key}", trained.store.read(f"{here}/{file.key}"))
    put(store, manifest, ("zero", *manifest.classes[1:]))
    found = evaluate(checkpoint, store, "digits").predictions
    assert np.array_equal(found.row_ids, predictions["test"].row_ids)
    assert np.array_equal(found.predictions, predictions["test"].predictions)


def test_a_dataset_without_one_of_the_classes_is_refused(
    subset: Subset, trained: Trained, tmp_path: Path
):
    store, classes = Store.open(str(tmp_path)), trained.manifest.classes
    put(store, trained.manifest, tuple(f"digit {name}" for name in classes))
    with pytest.raises(InputError, match="dataset digits has no fine class '8'; "):
        evaluate(subset[0], store, "digits")


def test_a_picture_gets_the_name_of_a_learned_class(
    subset: Subset, trained: Trained, tmp_path: Path
):
    checkpoint, predictions = subset
    test = predictions["test"]
    images = read_images(trained.store, trained.manifest, "test", test.row_ids[:20])
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[:, :, 0]).save(path)
    found = predict(checkpoint, [str(path) for path in paths])
    assert [one.top5[0].label for one in found] == [NAMES[k] for k in test.predictions[:20]]
    assert {len(one.top5) for one in found} == {3}


def test_an_export_names_the_learned_classes(subset: Subset, tmp_path: Path):
    from safetensors import safe_open

    export(subset[0], "safetensors", tmp_path / "net.safetensors")
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        about = file.metadata()
        assert (3,) in [tuple(file.get_tensor(name).shape) for name in file.keys()]  # noqa: SIM118
    assert json.loads(about["classes"]) == list(NAMES)
    assert json.loads(about["dataset"])["classes"] == list(NAMES)
    assert describe(subset[0]).items() <= about.items()
