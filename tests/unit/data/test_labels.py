"""Which classes a job learns and what they are called; what is no class is refused by name."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cifarray.data.catalog import CIFAR100, CIFAR100_SUPERCLASSES, DATASETS
from cifarray.data.split import Labels, learned_labels
from cifarray.errors import DatasetError, JobError
from cifarray.spec.job import DatasetSpec


def learned(**fields: Any) -> Labels:
    dataset = DatasetSpec.model_validate({"name": "cifar100", **fields})
    return learned_labels(dataset, DATASETS[dataset.name])


def test_without_a_choice_all_classes_keep_their_labels():
    labels = learned()
    assert (labels.column, labels.stored) == ("label", None)
    assert labels.classes == CIFAR100.classes
    assert labels.coarse_classes == CIFAR100.coarse_classes
    assert labels.fine_to_coarse == CIFAR100.fine_to_coarse


def test_a_number_takes_the_first_classes():
    labels = learned(classes=25)
    assert labels.stored == tuple(range(25))
    assert labels.classes == CIFAR100.classes[:25]
    assert labels.classes[-1] == "cockroach"


def test_names_are_numbered_as_listed():
    labels = learned(classes=["whale", "apple", "beaver"])
    assert labels.classes == ("whale", "apple", "beaver")
    assert labels.stored == tuple(CIFAR100.classes.index(name) for name in labels.classes)


def test_only_superclasses_of_the_chosen_classes_remain_and_each_class_keeps_its_own():
    labels = learned(classes=["whale", "apple", "beaver"])
    assert labels.coarse_classes == ("aquatic_mammals", "fruit_and_vegetables")
    assert labels.fine_to_coarse == (0, 1, 0)
    first = learned(classes=25)
    for name, coarse in zip(first.classes, first.fine_to_coarse, strict=True):
        assert name in CIFAR100_SUPERCLASSES[first.coarse_classes[coarse]]


def test_coarse_classes_are_chosen_by_their_own_names():
    labels = learned(labels="coarse", classes=["trees", "fish"])
    assert (labels.column, labels.stored) == ("coarse_label", (17, 1))
    assert (labels.coarse_classes, labels.fine_to_coarse) == ((), ())
    assert learned(labels="coarse", classes=3).classes == CIFAR100.coarse_classes[:3]


def test_digits_may_be_named_as_yaml_reads_them():
    assert learned(name="digits", classes=[3, "8", 1]).stored == (3, 8, 1)


def test_rows_of_other_classes_are_told_apart_and_the_rest_renumbered():
    labels = learned(classes=["whale", "apple"])
    stored = [0, 95, 7, 95]
    assert [CIFAR100.classes[label] for label in stored[:2]] == ["apple", "whale"]
    table = pa.table({"row_id": [5, 6, 7, 8], "label": pa.array(stored, pa.int16())})
    among = labels.among(table)
    assert among.tolist() == [True, True, False, True]
    renumbered = labels.renumbered(table.take(np.flatnonzero(among)))
    assert renumbered.column_names == table.column_names
    assert renumbered["label"].to_pylist() == [1, 0, 0]
    assert renumbered["row_id"].to_pylist() == [5, 6, 8]


def test_a_table_of_all_classes_is_left_as_it_is():
    table = pa.table({"label": [0, 95, 7]})
    assert learned().among(table).all()
    assert learned().renumbered(table) is table


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"classes": ["whale", "aple"]}, "cifar100 has no fine class 'aple'; did you mean apple"),
        (
            {"classes": ["whale", "fish"]},
            "cifar100 has no fine class 'fish'; did you mean flatfish",
        ),
        (
            {"labels": "coarse", "classes": ["fish", "three"]},
            "cifar100 has no coarse class 'three'; did you mean trees",
        ),
        ({"classes": 101}, "dataset.classes 101 is more than the 100 fine classes of cifar100"),
        ({"labels": "coarse", "classes": 21}, "21 is more than the 20 coarse classes"),
        ({"name": "digits", "labels": "coarse", "classes": 2}, "without coarse labels; use fine"),
    ],
)
def test_what_the_dataset_does_not_have_is_refused(fields: dict[str, Any], sentence: str):
    with pytest.raises(JobError, match=sentence):
        learned(**fields)


@pytest.mark.parametrize("label", [-1, 100])
def test_a_stored_label_that_no_class_has_is_refused(label: int):
    table = pa.table({"label": pa.array([0, label, 99], pa.int16())})
    with pytest.raises(
        DatasetError, match=rf"has label {label}, but labels are 0 to 99; prepare the dataset"
    ):
        learned().renumbered(table)
