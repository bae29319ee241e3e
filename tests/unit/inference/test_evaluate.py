"""`evaluate` gives the figures that the training's own evaluation gave."""

import numpy as np
import pytest

from cifarray.data.manifest import Manifest
from cifarray.errors import DatasetError
from cifarray.inference.evaluate import evaluate
from cifarray.store import Store
from cifarray.store.layout import latest_key, manifest_key
from cifarray.training.checkpoint import Checkpoint
from tests.unit.inference.conftest import Trained


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_gets_the_figures_of_the_training(
    checkpoint: Checkpoint, trained: Trained, split: str
):
    found = evaluate(checkpoint, trained.store, split=split)
    expected = trained.predictions[split]
    assert np.array_equal(found.predictions.row_ids, expected.row_ids)
    assert np.array_equal(found.predictions.predictions, expected.predictions)
    figures = found.to_json()
    assert figures["rows"] == expected.rows
    assert figures["top1"] == expected.top1
    assert figures["top1_interval"] == list(expected.interval)
    assert figures["top5"] == expected.top5
    assert figures["loss"] == pytest.approx(expected.loss, rel=1e-9)
    assert figures["superclass_top1"] is None
    assert figures["dataset"] == {"name": "digits", "digest": trained.manifest.digest}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_is_streamed_gets_the_same_figures(
    checkpoint: Checkpoint, trained: Trained, split: str, monkeypatch: pytest.MonkeyPatch
):
    held = evaluate(checkpoint, trained.store, split=split)
    monkeypatch.setattr("cifarray.inference.evaluate.CACHE_BYTES", 0)
    monkeypatch.delattr("cifarray.data.shard.ResidentShard.in_order")
    streamed = evaluate(checkpoint, trained.store, split=split)
    assert streamed.predictions.row_ids.tolist() == held.predictions.row_ids.tolist()
    assert streamed.to_json() == held.to_json()


def test_test_is_the_whole_published_split(checkpoint: Checkpoint, trained: Trained):
    found = evaluate(checkpoint, trained.store)
    assert found.predictions.row_ids.tolist() == list(range(trained.manifest.splits["test"].rows))


def test_naming_the_dataset_itself_changes_nothing(checkpoint: Checkpoint, trained: Trained):
    named = evaluate(checkpoint, trained.store, "digits", "validation")
    assert named.to_json() == evaluate(checkpoint, trained.store, None, "validation").to_json()


def test_an_unknown_split_names_the_others(checkpoint: Checkpoint, trained: Trained):
    with pytest.raises(DatasetError, match="choose from: train, validation, test"):
        evaluate(checkpoint, trained.store, split="tset")


def test_a_dataset_that_is_not_there_names_the_command(checkpoint: Checkpoint, tmp_path: object):
    with pytest.raises(DatasetError, match="cifarray data prepare digits"):
        evaluate(checkpoint, Store.open(str(tmp_path)))


@pytest.fixture
def other_digits(trained: Trained, tmp_path: object) -> tuple[Store, Manifest]:
    """A store with digits' manifest under another digest."""
    store = Store.open(str(tmp_path))
    return store, trained.manifest.model_copy(update={"digest": "f" * 64})


def put(store: Store, manifest: Manifest) -> None:
    key = manifest_key(manifest.name, manifest.digest)
    store.write(key, manifest.model_dump_json().encode())
    store.write(latest_key(manifest.name), manifest.digest.encode())


def test_of_another_digest_only_test_can_be_evaluated(
    checkpoint: Checkpoint, other_digits: tuple[Store, Manifest]
):
    put(*other_digits)
    with pytest.raises(DatasetError, match="choose from: test"):
        evaluate(checkpoint, other_digits[0], "digits", "train")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": tuple("abcdefghij")}, "the first that differs is number 0"),
        ({"shape": (9, 8, 1)}, r"\[9, 8, 1\] .*, but the network takes \[8, 8, 1\]"),
    ],
)
def test_a_dataset_with_other_classes_or_another_shape_is_refused(
    checkpoint: Checkpoint,
    other_digits: tuple[Store, Manifest],
    change: dict[str, object],
    sentence: str,
):
    store, manifest = other_digits
    put(store, manifest.model_copy(update=change))
    with pytest.raises(DatasetError, match=sentence):
        evaluate(checkpoint, store, "digits")
