"""Cached features train the head that images would, and are shared, mended and refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch

from cifarray.data.ingest import prepare
from cifarray.errors import JobError
from cifarray.inference.evaluate import evaluate
from cifarray.store import Store
from cifarray.training.checkpoint import load_checkpoint, read_state, write_checkpoint
from cifarray.training.features import FeatureCache
from cifarray.training.trainer import Trainer
from tests.archives import write_cifar100
from tests.digit_sessions import Digits, same_weights, small_job, weights_of, without_times
from tests.frozen_sessions import Pretrained

FROZEN = {"frozen": True, "dropout": 0.2}
CACHED = {**FROZEN, "features": "cached"}
FIGURES = ("train.running_loss", "validation.loss")


@pytest.fixture
def pretrained(tmp_path: Path) -> Pretrained:
    """Digits in a store of this test's own, and a backbone trained on them."""
    return Pretrained.on(Digits.prepared_in(tmp_path / "store"), tmp_path / "checkpoint")


@pytest.fixture(params=["real", "made"])
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pretrained]:
    """CIFAR-100's own images where they are there, or digits in its layout."""
    if request.param == "real":
        archive = request.getfixturevalue("test_data") / "cifar-100-python.subset.tar.gz"
    else:
        archive = write_cifar100(tmp_path / "cifar100.tar.gz", 2, 1)
    store = Store.open(str(tmp_path / "photos"))
    photos = Digits(store, prepare(store, "cifar100", str(archive))[0])
    chosen = {"name": "cifar100", "rows": 150}
    yield Pretrained.on(photos, tmp_path / "checkpoint", dataset=chosen)


def finished(trainer: Trainer) -> list[dict[str, Any]]:
    return [without_times(record) for record in trainer.records()]


def parts(store: Store) -> list[str]:
    return [entry.key for entry in store.list("features") if entry.key.endswith(".parquet")]


def close(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> bool:
    pairs = zip(one, two, strict=True)
    return all(abs(a[name] - b[name]) < 1e-5 for a, b in pairs for name in FIGURES)


def test_cached_features_give_what_images_give_without_augmentation(photos: Pretrained):
    sections: dict[str, Any] = {"dataset": {"name": "cifar100", "rows": 150}}
    sections["preprocess"] = {"normalize": "imagenet", "resize": 40}
    of_images = photos.trainer(photos.job(model=FROZEN, **sections))
    figures = finished(of_images)
    assert len(figures) == 2
    of_features = photos.trainer(photos.job(model=CACHED, **sections))
    assert close(finished(of_features), figures)
    theirs, ours = (s.evaluate(s.state()["model"]) for s in (of_images, of_features))
    assert theirs is not None
    assert ours is not None
    for split, rows in theirs.items():
        assert np.array_equal(ours[split].row_ids, rows.row_ids)
        assert np.array_equal(ours[split].predictions, rows.predictions)
        assert np.allclose(ours[split].losses, rows.losses, atol=1e-5)


@pytest.mark.parametrize("normalize", ["standardize", "none", "whitening"])
def test_gray_images_of_any_scaling_are_the_same_through_the_cache(
    pretrained: Pretrained, normalize: str
):
    epsilon = 0.1 if normalize == "whitening" else None
    sections = {"preprocess": {"normalize": normalize, "epsilon": epsilon}}
    figures = finished(pretrained.trainer(pretrained.job(model=FROZEN, **sections)))
    assert close(finished(pretrained.trainer(pretrained.job(model=CACHED, **sections))), figures)


def test_the_checkpoint_predicts_from_images_what_the_head_learned_from_features(
    pretrained: Pretrained, tmp_path: Path
):
    trainer = pretrained.trainer(pretrained.job(model=CACHED))
    *_, record = trainer.records()
    write_checkpoint(tmp_path / "trained", trainer.state(), record)
    said = trainer.evaluate(trainer.state()["model"])
    assert said is not None
    checkpoint = load_checkpoint(tmp_path / "trained")
    for split, rows in said.items():
        found = evaluate(checkpoint, pretrained.digits.store, split=split).predictions
        order = np.argsort(found.row_ids), np.argsort(rows.row_ids)
        assert np.array_equal(found.predictions[order[0]], rows.predictions[order[1]])
        assert found.loss == pytest.approx(rows.loss, abs=1e-5)


def test_a_resumed_training_on_features_ends_with_the_weights_of_an_uninterrupted_one(
    pretrained: Pretrained, tmp_path: Path
):
    job = pretrained.job(model=CACHED, train={"epochs": 3, "ema_decay": 0.9})
    whole = pretrained.trainer(job)
    expected = finished(whole)
    killed = pretrained.trainer(job)
    record = next(killed.records())
    write_checkpoint(tmp_path / "cut", killed.state(), record)
    resumed = pretrained.trainer(job)
    resumed.restore(read_state(tmp_path / "cut"))
    assert finished(resumed) == expected[1:]
    assert same_weights(weights_of(resumed), weights_of(whole))


def test_features_are_computed_once_and_again_when_they_vanish_or_are_damaged(
    pretrained: Pretrained, capfd: pytest.CaptureFixture[str]
):
    store, job = pretrained.digits.store, pretrained.job(model=CACHED)
    expected = finished(pretrained.trainer(job))
    assert "computed features of 64 train rows, 0 to go" in capfd.readouterr().out
    first = parts(store)
    assert len(first) == 2  # of train, and of the rows of train that validate
    assert finished(pretrained.trainer(job)) == expected
    assert "computed" not in capfd.readouterr().out
    store.delete([first[0]])
    damaged = bytearray(store.read(first[1]))
    damaged[len(damaged) // 2] ^= 255
    store.write(first[1], bytes(damaged))
    assert finished(pretrained.trainer(job)) == expected
    assert capfd.readouterr().out.count("computed features") == 2
    assert parts(store) == first
    store.delete_folder("features")
    assert finished(pretrained.trainer(job)) == expected


def test_another_selection_computes_only_the_rows_that_are_new(
    pretrained: Pretrained, capfd: pytest.CaptureFixture[str]
):
    finished(pretrained.trainer(pretrained.job(model=CACHED)))
    capfd.readouterr()
    more = pretrained.job(model=CACHED, dataset={"rows": 100}, validation={"fraction": 0.1})
    of_images = pretrained.job(model=FROZEN, dataset={"rows": 100}, validation={"fraction": 0.1})
    figures = finished(pretrained.trainer(more))
    assert capfd.readouterr().out.startswith("computed features of 1")  # of 90 rows
    assert close(figures, finished(pretrained.trainer(of_images)))


def test_what_changes_the_features_gives_them_another_folder(pretrained: Pretrained):
    store = pretrained.digits.store
    for model in ({}, {"head": None}, {"dropout": 0.5}):  # these do not
        finished(pretrained.trainer(pretrained.job(model={**CACHED, **model})))
    (prefix,) = {key.split("/")[3] for key in parts(store)}
    finished(pretrained.trainer(pretrained.job(model=CACHED, preprocess={"resize": 12})))
    assert len({key.split("/")[3] for key in parts(store)}) == 2
    other = Pretrained.on(pretrained.digits, pretrained.checkpoint.parent / "other", seed=9)
    finished(other.trainer(other.job(model=CACHED)))
    folders = {key.split("/")[3] for key in parts(store)}
    assert len(folders) == 3
    about = store.read_json(
        f"features/digits/{pretrained.digits.manifest.digest[:12]}/{prefix}/about.json"
    )
    assert about["backbone"] == "timm/test_resnet"
    assert about["digest"] == pretrained.digits.manifest.digest
    assert about["preprocess"]["normalize"] == "standardize"
    assert about["timm"] == timm.__version__


def test_a_part_is_parquet_that_others_read(pretrained: Pretrained):
    trainer = pretrained.trainer(pretrained.job(model=CACHED))
    rows = trainer.shard("train")
    (key,) = parts(pretrained.digits.store)
    table = pq.read_table(Path(pretrained.digits.store.path(key)))
    held = next(rows.in_order(1000))
    assert table["row_id"].to_pylist() == held.row_ids_N.tolist()
    first = np.frombuffer(table["features"][0].as_py(), dtype=np.float32)
    assert np.array_equal(first, held.images_NCHW[0, :, 0, 0].numpy())


def test_ranks_share_what_each_of_them_computed(tmp_path: Path):
    store = Store.open(str(tmp_path))
    cache = FeatureCache(store, {"dataset": "digits", "digest": "f" * 64})
    features = np.arange(40, dtype=np.float32).reshape(10, 4)
    cache.write("train", np.array([9, 2, 5]), features[[9, 2, 5]])
    cache.write("train", np.array([1, 0, 2]), features[[1, 0, 2]])
    found, known = cache.read("train", np.array([5, 1, 7, 2]), width=4)
    assert known.tolist() == [True, True, False, True]
    assert torch.equal(found[known], torch.from_numpy(features[[5, 1, 2]]))
    assert not cache.read("test", np.array([5]), width=4)[1].any()
    assert not cache.read("train", np.array([5]), width=5)[1].any()
    assert cache.read("train", np.empty(0, dtype=np.int64), width=4)[0].shape == (0, 4)


def test_features_that_a_worker_cannot_hold_are_refused_with_what_they_take(
    pretrained: Pretrained,
):
    trainer = pretrained.trainer(pretrained.job(model=CACHED))
    rows = trainer._rows
    size = (64 + 16) * 96 * 4
    for limit, fits in ((size, True), (size - 1, False)):
        trainer = pretrained.trainer(pretrained.job(model=CACHED))
        assert trainer._features is not None
        trainer._features._rows = replace(rows, cache_bytes=limit)
        if fits:
            assert trainer.shard("train").rows == 64
        else:
            with pytest.raises(JobError, match=r"features of 80 rows take .*cache_bytes_per_wor"):
                trainer.shard("train")


def test_augmentation_of_cached_features_is_refused():
    with pytest.raises(ValueError, match=r"computes each image once, but augment\.horizontal_flip"):
        small_job(
            model={"name": "timm/test_resnet", "weights": "timm", **CACHED},
            augment={"horizontal_flip": {}},
        )
