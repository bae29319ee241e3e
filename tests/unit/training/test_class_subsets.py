"""A trainer on some classes: as many outputs as classes, labels from 0, resumed on no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifarray.data.ingest import prepare
from cifarray.data.parquet import read_columns
from cifarray.errors import CheckpointError
from cifarray.store import Store
from cifarray.training.checkpoint import load_checkpoint, read_state, write_checkpoint
from cifarray.training.trainer import Trainer
from tests.archives import write_cifar100
from tests.digit_sessions import Digits, open_rows, same_weights, small_job, weights_of

EIGHT_THREE_ONE = {"classes": ["8", "3", "1"]}


def finished(trainer: Trainer) -> Trainer:
    for _ in trainer.records():
        pass
    return trainer


@pytest.fixture(scope="module")
def trainer(digits: Digits) -> Iterator[Trainer]:
    """Trained on 80 eights, threes and ones."""
    yield finished(digits.trainer(small_job(dataset=EIGHT_THREE_ONE, train={"epochs": 12})))


def test_the_network_has_an_output_per_class_and_the_checkpoint_their_names(
    trainer: Trainer, tmp_path: Path
):
    write_checkpoint(tmp_path, trainer.state(), trainer.history[-1])
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.classes == ("8", "3", "1")
    assert list(weights_of(trainer).values())[-1].shape == (3,)
    assert checkpoint.dataset["classes"] == ["8", "3", "1"]
    assert (checkpoint.dataset["archive_part"], checkpoint.dataset["rows"]) == (None, 80)


def test_labels_are_places_in_the_list_of_every_row_of_these_classes(
    trainer: Trainer, digits: Digits
):
    found = trainer.evaluate(trainer.state()["model"])
    assert found is not None
    for split, stored in (("train", "train"), ("validation", "train"), ("test", "test")):
        table = read_columns(digits.store, digits.manifest, stored, ["row_id", "label"])
        label_of = dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
        names = [("8", "3", "1")[label] for label in found[split].labels]
        assert names == [str(label_of[row]) for row in found[split].row_ids.tolist()]
    counts = digits.manifest.splits["test"].class_counts
    assert found["test"].rows == sum(counts[digit] for digit in (1, 3, 8))
    assert (found["train"].rows, found["validation"].rows) == (64, 16)
    assert np.ptp(np.bincount(found["validation"].labels)) <= 1
    assert found["test"].top1 > 0.6


def test_streamed_rows_give_the_labels_that_resident_ones_give(digits: Digits):
    job = small_job(dataset=EIGHT_THREE_ONE)
    resident, streamed = digits.rows(job), digits.rows(job, cache_bytes=1)
    for split in ("train", "validation", "test"):
        (one,), (two,) = (list(rows.shard(split).in_order(1000)) for rows in (resident, streamed))
        assert one.labels_N.tolist() == two.labels_N.tolist()
        assert set(one.labels_N.tolist()) == {0, 1, 2}


def test_all_classes_by_number_train_the_network_that_no_choice_trains(digits: Digits):
    plain = finished(digits.trainer(small_job()))
    counted = finished(digits.trainer(small_job(dataset={"classes": 10})))
    assert same_weights(weights_of(plain), weights_of(counted))


def test_mean_and_std_are_those_of_the_whole_dataset(trainer: Trainer, digits: Digits):
    preprocess = trainer.state()["preprocess"]
    assert (tuple(preprocess["mean"]), tuple(preprocess["std"])) == (
        digits.manifest.mean,
        digits.manifest.std,
    )


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"dataset": {"classes": 3}}, r"dataset\.classes 8, 3, 1, not 3"),
        ({"dataset": {"classes": ["3", "8", "1"]}}, r"dataset\.classes 8, 3, 1, not 3, 8, 1"),
        (
            {"dataset": {**EIGHT_THREE_ONE, "rows": 81}},
            r"dataset\.rows 80, not 81\)",
        ),
        (
            {"dataset": {**EIGHT_THREE_ONE, "archive_part": "train"}},
            r'dataset\.archive_part null, not "train"',
        ),
    ],
)
def test_resuming_with_another_selection_is_refused(
    trainer: Trainer, digits: Digits, sections: dict[str, Any], named: str
):
    other = digits.trainer(small_job(**sections, train={"epochs": 12}))
    sentence = (
        rf"trained on another selection \({named}.*; a run can only resume with the rows and "
        r"classes"
    )
    with pytest.raises(CheckpointError, match=sentence):
        other.restore(trainer.state())


def test_a_checkpoint_of_before_there_was_a_choice_resumes(digits: Digits, tmp_path: Path):
    half = digits.trainer(small_job())
    next(half.records())
    state = half.state()
    for field in ("classes", "archive_part"):
        del state["job"]["dataset"][field]
    del state["job"]["validation"]["archive_part"]
    state["dataset"] = {"name": "digits", "digest": digits.manifest.digest}
    write_checkpoint(tmp_path, state, half.history[-1])
    resumed = digits.trainer(small_job())
    resumed.restore(read_state(tmp_path))
    weights = weights_of(finished(resumed))
    assert same_weights(weights, weights_of(finished(digits.trainer(small_job()))))


def test_superclasses_of_a_subset_are_those_of_its_classes(tmp_path: Path):
    store = Store.open(str(tmp_path / "store"))
    archive = write_cifar100(tmp_path / "cifar100.tar.gz", 4, 1)
    manifest, _ = prepare(store, "cifar100", str(archive))
    job = small_job(dataset={"name": "cifar100", "classes": ["whale", "apple", "beaver"]})
    state = finished(Trainer(job, open_rows(store, manifest, job))).state()
    assert state["classes"] == ["whale", "apple", "beaver"]
    assert state["coarse_classes"] == ["aquatic_mammals", "fruit_and_vegetables"]
    assert state["fine_to_coarse"] == [0, 1, 0]
