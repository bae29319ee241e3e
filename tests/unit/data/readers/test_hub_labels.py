"""What the Hub's datasets say of rows beside the image: superclasses, no label, other splits."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cifarray.data.catalog import CIFAR100
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.manifest import Manifest
from cifarray.data.parquet import read_columns
from cifarray.data.verify import verify_dataset
from cifarray.errors import ArchiveError
from cifarray.store import Store
from tests.image_archives import encoded, folder_files, hub_shard, picture, write_folder

HUB = Ingest("huggingface")
SOUND = encoded(picture(0, 0))


def shards(**labels: Any) -> dict[str, pa.Table]:
    """A shard of each split with these labels."""
    return {
        f"data/{split}-00000-of-00001.parquet": hub_shard([SOUND] * len(of), of, tuple("abcde"))
        for split, of in labels.items()
    }


def prepared(store: Store, tmp_path: Path, files: Any, how: Ingest = HUB) -> Manifest:
    manifest, _ = prepare(store, "mine", str(write_folder(tmp_path / "given", files)), how=how)
    assert verify_dataset(store, "mine") == []
    return manifest


def with_coarse(coarse_of: Any, labels: list[int], column: str = "coarse_label") -> pa.Table:
    """CIFAR-100 as the Hub has it: img, fine_label, coarse_label."""
    from json import dumps

    said = {
        "img": {"_type": "Image"},
        "fine_label": {"_type": "ClassLabel", "names": list(CIFAR100.classes)},
        column: {"_type": "ClassLabel", "names": list(CIFAR100.coarse_classes)},
    }
    about = {b"huggingface": dumps({"info": {"features": said}}).encode()}
    plain = hub_shard([SOUND] * len(labels), labels, CIFAR100.classes, column="img")
    table = plain.rename_columns(["img", "fine_label"])
    table = table.append_column(column, pa.array([coarse_of(label) for label in labels]))
    return table.replace_schema_metadata(about)


@pytest.mark.parametrize("column", ["coarse_label", "superclass"])
def test_superclasses_are_kept(column: str, local_store: Store, tmp_path: Path):
    labels = list(range(100)) * 2
    table = with_coarse(CIFAR100.fine_to_coarse.__getitem__, labels, column)
    files = {f"cifar100/{split}-00000-of-00001.parquet": table for split in ("train", "test")}
    manifest = prepared(local_store, tmp_path, files)
    assert manifest.classes == CIFAR100.classes
    assert manifest.coarse_classes == CIFAR100.coarse_classes
    assert manifest.fine_to_coarse == CIFAR100.fine_to_coarse
    assert manifest.left_out == ()
    stored = read_columns(local_store, manifest, "train", ["label", "coarse_label"])
    expected = np.array(CIFAR100.fine_to_coarse)[stored["label"].to_numpy()]
    assert np.array_equal(stored["coarse_label"].to_numpy(), expected)


def test_of_a_subset_the_superclasses_that_have_rows_are_kept(local_store: Store, tmp_path: Path):
    chosen = [3, 50, 97]
    table = with_coarse(CIFAR100.fine_to_coarse.__getitem__, chosen * 2)
    files = {f"{split}-0.parquet": table for split in ("train", "test")}
    manifest = prepared(local_store, tmp_path, files)
    assert manifest.classes == tuple(CIFAR100.classes[label] for label in chosen)
    for place, label in enumerate(chosen):
        name = manifest.coarse_classes[manifest.fine_to_coarse[place]]
        assert name == CIFAR100.coarse_classes[CIFAR100.fine_to_coarse[label]]


def test_a_second_column_of_labels_that_is_no_superclass_is_left_out_and_counted(
    local_store: Store, tmp_path: Path
):
    rows = iter(range(1000))
    table = with_coarse(lambda label: next(rows) % 20, [1, 2, 3] * 7)
    files = {f"{split}-0.parquet": table for split in ("train", "test")}
    manifest = prepared(local_store, tmp_path, files)
    assert manifest.coarse_classes == ()
    (reason,) = [e.reason for e in manifest.left_out or () if e.kind == "column"]
    assert reason == "column left out: coarse_label (not one superclass per class)"


def test_other_columns_are_counted_unless_they_hold_nothing(local_store: Store, tmp_path: Path):
    files = shards(train=[0, 1] * 3, test=[0, 1])
    for name, table in files.items():
        caption = pa.array(["a cat"] * len(table))
        files[name] = table.append_column("caption", caption).append_column(
            "empty", pa.nulls(len(table), pa.string())
        )
    manifest = prepared(local_store, tmp_path, files)
    reasons = [entry.reason for entry in manifest.left_out or () if entry.kind == "column"]
    assert reasons == ["column left out: caption"]
    assert manifest.source.complete


def test_classes_without_a_row_are_left_out_and_the_others_numbered_anew(
    local_store: Store, tmp_path: Path
):
    manifest = prepared(local_store, tmp_path, shards(train=[0, 2, 4] * 2, test=[4, 2, 0]))
    assert manifest.classes == ("a", "c", "e")
    table = read_columns(local_store, manifest, "test", ["label", "row_id"]).sort_by("row_id")
    assert table["label"].to_pylist() == [2, 1, 0]
    assert [(e.kind, e.class_name) for e in manifest.left_out or ()] == [
        ("class", "b"),
        ("class", "d"),
    ]
    assert manifest.source.complete


def test_rows_of_a_class_that_the_other_split_lacks_are_lost_only_when_asked(
    local_store: Store, tmp_path: Path
):
    files = shards(train=[0, 2] * 2, test=[0, 1, 2, 3])
    with pytest.raises(ArchiveError, match=r"1 of 1 .*class '[bd]' in test .*no row in train"):
        prepared(local_store, tmp_path, files)
    manifest = prepared(local_store, tmp_path, files, Ingest("huggingface", accept_loss=True))
    assert manifest.classes == ("a", "c")
    assert {split: part.rows for split, part in manifest.splits.items()} == {"train": 4, "test": 2}
    lost = [(e.split, e.class_name, e.count) for e in manifest.left_out or () if e.kind == "image"]
    assert lost == [("test", "b", 1), ("test", "d", 1)]
    assert manifest.source.skipped_images == 2


def test_a_test_without_labels_offers_the_split_that_has_some(local_store: Store, tmp_path: Path):
    files = shards(train=[0, 1] * 3, validation=[0, 1, 1], test=[-1] * 6)
    sentence = r"6 rows of split test have no class label .* add --test-split validation$"
    with pytest.raises(ArchiveError, match=sentence):
        prepared(local_store, tmp_path, files)
    with pytest.raises(ArchiveError, match=r"give shards with labeled rows$"):
        prepared(local_store, tmp_path / "b", shards(train=[0, 1], test=[-1]))
    assert local_store.list("") == []


@pytest.mark.parametrize("asked", ["validation", "val"])
def test_validation_becomes_test_when_asked(asked: str, local_store: Store, tmp_path: Path):
    files = shards(train=[0, 1] * 3, validation=[0, 1, 1], test=[-1] * 6)
    manifest = prepared(local_store, tmp_path, files, Ingest("huggingface", test_split=asked))
    assert manifest.splits["test"].class_counts == (1, 2)
    assert manifest.source.test_split == asked
    entries = [(e.kind, e.split, e.count) for e in manifest.left_out or ()]
    assert entries == [("split", "test", 6), *[("class", None, 1)] * 3]
    labeled = shards(train=[0, 1] * 3, validation=[0, 1, 1], test=[0, 1])
    other = tmp_path / "other"
    as_test, _ = prepare(local_store, "mine", str(write_folder(other, labeled)), how=HUB)
    how = Ingest("huggingface", test_split=asked)
    as_validation, _ = prepare(local_store, "mine", str(other), how=how)
    assert as_test.digest != as_validation.digest


@pytest.mark.parametrize("split", ["val", "valid", "validation", "dev"])
def test_a_folder_for_validation_becomes_test_when_asked(
    split: str, local_store: Store, tmp_path: Path
):
    files = {name.replace("test/", f"{split}/"): c for name, c in folder_files().items()}
    given = write_folder(tmp_path / "given", files)
    with pytest.raises(ArchiveError, match=f"to test on {split}/, add --test-split {split}$"):
        prepare(local_store, "mine", str(given), how=Ingest("imagefolder"))
    how = Ingest("imagefolder", test_split=split)
    manifest, _ = prepare(local_store, "mine", str(given), how=how)
    assert {s: part.rows for s, part in manifest.splits.items()} == {"train": 12, "test": 6}
    assert (manifest.source.test_split, manifest.left_out) == (split, ())


def test_shards_of_other_splits_are_counted_by_their_rows(local_store: Store, tmp_path: Path):
    files: Any = shards(train=[0, 1] * 3, test=[0, 1], unlabeled=[0] * 7, dev=[1] * 2)
    files["data/broken-0.parquet"] = b"rubbish"
    manifest = prepared(local_store, tmp_path, files)
    entries = {e.split: (e.kind, e.count) for e in manifest.left_out or () if e.kind != "class"}
    assert entries == {"unlabeled": ("split", 7), "dev": ("split", 2), "broken": ("file", 1)}
    assert not manifest.source.complete


def test_a_few_rows_without_a_label_are_left_out_and_counted(local_store: Store, tmp_path: Path):
    labels = [0, 1] * 150 + [-1, None, 7]
    manifest = prepared(local_store, tmp_path, shards(train=labels, test=[0, 1]))
    assert manifest.splits["train"].rows == 300
    lost = {e.reason: (e.split, e.count) for e in manifest.left_out or () if e.kind == "image"}
    assert lost == {
        "label -1": ("train", 1),
        "no label": ("train", 1),
        "label that names no class": ("train", 1),
    }
    assert (manifest.source.complete, manifest.source.skipped_images) == (False, 3)
