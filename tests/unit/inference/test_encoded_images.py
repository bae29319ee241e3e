"""Images of any size: training, evaluate, predict and exports all see the same squares of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cifarray.data.decode import square
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import read_columns, read_images
from cifarray.data.ray_dataset import plan_reads, read_group
from cifarray.data.split import select_rows
from cifarray.errors import DatasetError
from cifarray.inference.evaluate import evaluate
from cifarray.inference.export import TOLERANCE, export
from cifarray.inference.predict import predict
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix
from cifarray.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from cifarray.training.trainer import Trainer
from tests.digit_sessions import open_rows, small_job
from tests.image_archives import encoded, folder_files, picture, write_folder

SIDE = 20
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = folder_files(CLASSES, train=20, test=6)
    return write_folder(tmp_path_factory.mktemp("pets"), files)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Store:
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    prepare(store, "pets", str(folder), how=Ingest("imagefolder"))
    return store


@pytest.fixture(scope="module")
def manifest(store: Store, folder: Path) -> Manifest:
    return prepare(store, "pets", str(folder), how=Ingest("imagefolder"))[0]


def pets_job(**sections: Any) -> Job:
    own = {
        "dataset": {"name": "pets", "rows": None},
        "preprocess": {"resize": SIDE},
        "augment": {"horizontal_flip": {}},
        "train": {"epochs": 4, "global_batch_size": 8},
    }
    return small_job(**{**own, **sections})


def run(store: Store, manifest: Manifest, job: Job) -> Trainer:
    session = Trainer(job, open_rows(store, manifest, job))
    for _ in session.records():
        pass
    return session


@pytest.fixture(scope="module")
def session(store: Store, manifest: Manifest) -> Trainer:
    return run(store, manifest, pets_job())


@pytest.fixture(scope="module")
def checkpoint(session: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, session.state(), session.history[-1])
    return load_checkpoint(folder)


def test_workers_hold_squares_of_the_files(store: Store, manifest: Manifest, folder: Path):
    held = open_rows(store, manifest, pets_job()).shard("train")
    files = sorted(folder.glob("train/*/*"))
    for rows in held.in_order(16):
        assert rows.images_NCHW.shape[1:] == (3, SIDE, SIDE)
        for image_CHW, row_id in zip(rows.images_NCHW, rows.row_ids_N, strict=True):
            expected = square(files[int(row_id)].read_bytes(), SIDE)
            assert np.array_equal(image_CHW.permute(1, 2, 0).numpy(), expected)


def test_what_is_planned_is_what_is_read_and_each_row_once(store: Store, manifest: Manifest):
    positions = select_rows(store, manifest, pets_job()).positions["train"]
    columns = ("image", "label", "row_id")
    row_ids: list[int] = []
    for read in plan_reads(manifest, "train", positions, SIDE):
        table = read_group(store, read, columns)
        assert table["image"].type == pa.binary(SIDE * SIDE * 3)
        assert read.size_bytes == table.num_rows * SIDE * SIDE * 3
        row_ids += table["row_id"].to_pylist()
    stored = read_columns(store, manifest, "train", ["row_id"])["row_id"].to_numpy()
    assert row_ids == stored[positions].tolist()


def test_squares_that_are_streamed_are_those_that_stay_on_the_device(
    store: Store, manifest: Manifest
):
    held, streamed = (
        open_rows(store, manifest, pets_job(), cache_bytes=budget).shard("train")
        for budget in (1 << 30, 0)
    )
    for ours, theirs in zip(held.in_order(16), streamed.in_order(16), strict=True):
        assert torch.equal(ours.images_NCHW, theirs.images_NCHW)
        assert torch.equal(ours.row_ids_N, theirs.row_ids_N)


def test_a_checkpoint_takes_squares_of_its_size(session: Trainer, checkpoint: Checkpoint):
    assert checkpoint.input_shape == (SIDE, SIDE, 3)
    assert session.history[-1]["validation.top1"] > 0.8  # shades are easily distinguished


def test_evaluate_says_what_the_training_said(
    store: Store, session: Trainer, checkpoint: Checkpoint
):
    predictions = session.evaluate(session.state()["model"])
    assert predictions is not None
    for split, expected in predictions.items():
        found = evaluate(checkpoint, store, split=split).predictions
        assert np.array_equal(found.row_ids, expected.row_ids)
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


def test_predict_says_the_same_of_the_files(store: Store, checkpoint: Checkpoint, folder: Path):
    evaluated = evaluate(checkpoint, store).predictions
    order = np.argsort(evaluated.row_ids)
    files = [str(file) for file in sorted(folder.glob("test/*/*"))]
    for place, prediction in zip(order, predict(checkpoint, files), strict=True):
        best = prediction.top5[0]
        assert best.label == CLASSES[evaluated.predictions[place]]
        assert best.probability == pytest.approx(evaluated.probabilities[place], abs=1e-5)


def test_an_exported_file_takes_the_squares(
    store: Store, manifest: Manifest, checkpoint: Checkpoint, tmp_path: Path
):
    import onnxruntime

    export(checkpoint, "onnx", tmp_path / "net.onnx")
    images = read_images(store, manifest, "test", range(18), SIDE)
    (found,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"images": images})
    evaluated = evaluate(checkpoint, store).predictions
    expected = evaluated.probabilities[np.argsort(evaluated.row_ids)]
    assert np.abs(found.max(1) - expected).max() <= TOLERANCE


def test_whitening_is_fitted_on_the_squares(store: Store, manifest: Manifest):
    job = pets_job(preprocess={"resize": 8, "normalize": "whitening", "epsilon": 0.1})
    job = job.model_copy(update={"train": job.train.model_copy(update={"epochs": 1})})
    matrix = run(store, manifest, job).state()["preprocess"]["whitening"]["matrix"]
    assert matrix.shape == (8 * 8 * 3, 8 * 8 * 3)


def test_a_network_of_another_shape_is_refused_in_one_sentence(
    store: Store, manifest: Manifest, checkpoint: Checkpoint
):
    gray = Checkpoint(**{**vars(checkpoint), "input_shape": (SIDE, SIDE, 1)})
    with pytest.raises(DatasetError, match=r"images of \[20, 20, 3\] .* takes \[20, 20, 1\]"):
        evaluate(gray, store)


def test_a_row_that_does_not_decode_is_named_where_it_is_read(tmp_path: Path):
    store = Store.open(str(tmp_path / "store"))
    images = write_folder(tmp_path / "images", folder_files(CLASSES, train=4, test=2))
    manifest, _ = prepare(store, "pets", str(images), how=Ingest("imagefolder"))
    good, bad = encoded(picture(0, 0)), b"x" * 300
    assert len(good) > len(bad)
    key = f"{dataset_prefix('pets', manifest.digest)}/train/part-00000.parquet"
    _replace_first_image(tmp_path / "store" / key, bad)
    (first, *_) = plan_reads(manifest, "train", np.arange(12), SIDE)
    with pytest.raises(DatasetError, match=r"image of row_id \d+ of .*/train/part-00000"):
        read_group(store, first, ("image", "label", "row_id"))


def _replace_first_image(path: Path, content: bytes) -> None:
    import pyarrow.parquet as pq

    old = pq.ParquetFile(path)
    groups = [old.read_row_group(group) for group in range(old.num_row_groups)]
    images = groups[0]["image"].to_pylist()
    images[0] = content
    field = groups[0].schema.field("image")
    groups[0] = groups[0].set_column(0, field, pa.array(images, pa.binary()))
    with pq.ParquetWriter(path, old.schema_arrow) as writer:
        for group in groups:
            writer.write_table(group)


def test_evaluate_decodes_no_more_than_the_rows_of_its_split(
    checkpoint: Checkpoint, tmp_path: Path
):
    store = Store.open(str(tmp_path / "store"))
    images = write_folder(tmp_path / "images", folder_files(CLASSES, train=40, test=2))
    manifest, _ = prepare(store, "pets", str(images), how=Ingest("imagefolder"))
    held_back = select_rows(store, manifest, pets_job()).positions["validation"]
    assert 0 not in held_back
    key = f"{dataset_prefix('pets', manifest.digest)}/train/part-00000.parquet"
    _replace_first_image(tmp_path / "store" / key, b"x" * 300)
    dataset = checkpoint.dataset | {"digest": manifest.digest}
    found = evaluate(
        Checkpoint(**{**vars(checkpoint), "dataset": dataset}), store, split="validation"
    )
    assert found.predictions.rows == len(held_back)
