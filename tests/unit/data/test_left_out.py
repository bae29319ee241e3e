"""Whatever a source holds and its dataset does not is counted by reason, and said everywhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from cifarray.data.catalog import CIFAR100
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.inspect import inspect_dataset
from cifarray.data.left_out import MOST_ENTRIES, LeftOut, LeftOutCounter, in_words, summed
from cifarray.data.manifest import load_manifest, repair_command
from cifarray.data.progress import Silent
from cifarray.data.readers.cifar import read_cifar
from cifarray.data.readers.containers import why_no_sample
from cifarray.errors import ArchiveError
from cifarray.store import Store
from cifarray.store.layout import manifest_key
from tests.archives import write_cifar100
from tests.image_archives import encoded, folder_files, picture, write_folder

Counted = tuple[str, str, str | None, str | None, int]
FOLDER = Ingest("imagefolder")
LITTER = (
    *("train/cat/Icon\r", "train/cat/._000.jpg", ".DS_Store", "train/dog/Thumbs.db"),
    *("train/@eaDir/000.jpg", "__MACOSX/train/cat/._000.jpg", "desktop.ini", "README.md"),
    *("train/cat/@eaDir/000.jpg/SYNOPHOTO_THUMB_M.jpg", "train/.ipynb_checkpoints/0.jpg"),
    *("LICENSE", "train/cat/000.jpg:Zone.Identifier", "$RECYCLE.BIN/x.jpg", "train/cat/000.jpg~"),
)


def counted(entries: tuple[LeftOut, ...] | None) -> list[Counted]:
    assert entries is not None
    return [(e.kind, e.reason, e.split, e.class_name, e.count) for e in entries]


@pytest.mark.parametrize("name", LITTER)
def test_what_nobody_put_there_is_hidden_and_costs_no_class_anything(
    name: str, local_store: Store, tmp_path: Path
):
    assert why_no_sample(name)
    files = folder_files(train=2, test=2)
    given = write_folder(tmp_path / "given", files | {name: files["train/cat/000.jpg"]})
    manifest, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    assert manifest.classes == ("cat", "dog")
    ((kind, *_, count),) = counted(manifest.left_out)
    assert (kind, count, manifest.source.complete) == ("litter", 1, True)


@pytest.mark.parametrize(
    "name", ["train/cat/readme.jpg", "train/license/1.jpg", "train/cat/license_plate.heic", "a.txt"]
)
def test_what_may_be_a_sample_is_not_hidden(name: str):
    assert why_no_sample(name) is None


@pytest.mark.parametrize(
    ("lost", "rows", "refused"), [(1, 99, False), (1, 98, True), (2, 198, False), (2, 197, True)]
)
def test_up_to_one_percent_of_a_class_may_be_lost(lost: int, rows: int, refused: bool):
    counter = LeftOutCounter()
    counter.add("image", "unreadable", split="train", class_name="cat", count=lost, example="x.jpg")
    counter.add("litter", "hidden or system file", count=1000)
    counter.add("file", "not an image: .txt", split="train", class_name="cat", count=1000)
    counter.add("split", "a split that is not used", split="val", class_name="cat", count=1000)
    kept = {"train": {"cat": rows, "dog": 5000}, "test": {"cat": 5, "dog": 5}}
    if not refused:
        counter.refuse_losses("pets", kept)
        return
    sentence = (
        f"pets: {lost} of {rows + lost} images of class 'cat' in train would be left out "
        r"\(unreadable, such as x\.jpg\); fix the archive, or accept the loss with --accept-loss"
    )
    with pytest.raises(ArchiveError, match=sentence):
        counter.refuse_losses("pets", kept)
    accepting = LeftOutCounter(accept_loss=True)
    accepting.add("image", "unreadable", split="train", class_name="cat", count=lost)
    accepting.refuse_losses("pets", kept)


def test_images_of_no_class_count_against_their_split():
    counter = LeftOutCounter()
    counter.add("image", "label -1", split="test", count=3, example="row 0 of test-0.parquet")
    with pytest.raises(ArchiveError, match="3 of 103 images of split test would be left out"):
        counter.refuse_losses("pets", {"test": {"cat": 50, "dog": 50}})
    counter.refuse_losses("pets", {"test": {"cat": 200, "dog": 200}})


def test_the_worst_class_is_named_and_the_others_are_counted():
    counter = LeftOutCounter()
    for name, count in (("cat", 1), ("dog", 9), ("cow", 2)):
        counter.add("image", "unreadable", split="train", class_name=name, count=count)
    kept = {"train": dict.fromkeys(("cat", "dog", "cow"), 10)}
    with pytest.raises(ArchiveError, match=r"9 of 19 .*'dog' in train .*and more than 1 % of 2 mo"):
        counter.refuse_losses("pets", kept)


def test_a_strangers_names_neither_fill_the_manifest_nor_steer_a_terminal():
    counter = LeftOutCounter()
    for number in range(MOST_ENTRIES + 50):
        counter.add("file", f"not an image: .{number}\x1b[31m\u202e", example="x" * 5000)
    entries = counter.entries()
    assert sum(entry.count for entry in entries) == MOST_ENTRIES + 50
    assert len(entries) == MOST_ENTRIES + 1
    assert all(entry.reason.isprintable() and len(entry.example) <= 120 for entry in entries)


def test_a_table_sums_over_the_classes():
    counter = LeftOutCounter()
    for name in ("cat", "dog"):
        counter.add("image", "unreadable", split="train", class_name=name, count=2, example="a.jpg")
    (row,) = summed(counter.entries())
    assert (row["count"], row["classes"]) == (4, 2)
    assert in_words(row) == "4 images of train in 2 classes: unreadable (a.jpg)"


def mixed_files() -> dict[str, bytes]:
    image = encoded(picture(0, 7))
    more = {
        "train/cat/9.heic": b"-",
        "train/cat/deeper/9.jpg": image,
        "train/flat.jpg": image,
        "train/cat/0.txt": b"a cat",
        "train/dog/no-suffix": b"-",
        "labels.csv": b"-",
        "val/dog/1.jpg": image,
        "extra/1.jpg": image,
        "logo.png": image,
        "README.md": b"-",
    }
    return folder_files() | more


MIXED: list[Counted] = [
    ("image", "not directly in train/CLASS/ or test/CLASS/", "train", None, 1),
    ("image", "not directly in train/CLASS/ or test/CLASS/", "train", "cat", 1),
    ("image", "unsupported format: .heic", "train", "cat", 1),
    ("image", "unsupported format: no suffix", "train", "dog", 1),
    ("split", "a folder that is not a split", "extra", None, 1),
    ("split", "a split that is not used", "val", "dog", 1),
    ("split", "image outside of any split", None, None, 1),
    ("class", "empty class folder", "train", "cow", 1),
    ("file", "not an image: .csv", None, None, 1),
    ("file", "not an image: .txt", "train", "cat", 1),
    ("litter", "readme, license or the like", None, None, 1),
]


def test_every_file_is_counted_and_said_in_manifest_json_inspect_and_output(
    cifarray_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from cifarray.cli.main import main

    files = mixed_files()
    given = write_folder(tmp_path / "given", files)
    (given / "train" / "cow").mkdir()
    words = ["data", "prepare", "mine", "--layout", "imagefolder", "--archive", str(given)]

    def typed(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(more)
        return (int(ended.value.code or 0), *capsys.readouterr())

    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert "--accept-loss" in err.splitlines()[-1]
    code, out, _ = typed(*words, "--accept-loss")
    assert code == 0
    assert "left out: 1 image of train: unsupported format: .heic (train/cat/9.heic)" in out
    assert "left out: 1 file: readme, license or the like (README.md)" in out
    store = Store.open(str(cifarray_home / "store"))
    manifest = load_manifest(store, "mine")
    assert counted(manifest.left_out) == MIXED
    held = sum(split.rows for split in manifest.splits.values())
    missing = sum(e.count for e in manifest.left_out or () if e.kind != "class")
    assert held + missing == len(files)
    assert (manifest.source.complete, manifest.source.skipped_images) == (False, 4)
    assert "--skip-bad --accept-loss" in repair_command(store, manifest)
    entries = [entry.model_dump(mode="json") for entry in manifest.left_out or ()]
    found = json.loads(typed(*words, "--json")[1])
    assert (found["left_out"], found["complete"], found["written"]) == (entries, False, False)
    assert inspect_dataset(store, "mine")["left_out"] == entries
    assert (
        "left out: 1 class of train: empty class folder (train/cow)"
        in typed("data", "inspect", "mine")[1]
    )


def test_files_that_come_later_are_seen_though_no_image_changes(local_store: Store, tmp_path: Path):
    given = write_folder(tmp_path / "given", folder_files())
    first, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    assert prepare(local_store, "mine", str(given), how=FOLDER) == (first, False)
    (given / "train/cat/new.heic").write_bytes(b"-")
    with pytest.raises(ArchiveError, match="1 of 7 images of class 'cat' in train"):
        prepare(local_store, "mine", str(given), how=FOLDER)
    accepting = Ingest("imagefolder", accept_loss=True)
    second, written = prepare(local_store, "mine", str(given), how=accepting)
    assert (second.digest, written) == (first.digest, True)
    assert len(second.left_out or ()) == 1
    assert prepare(local_store, "mine", str(given), how=FOLDER) == (second, False)


def test_a_manifest_of_before_anything_was_counted_is_read_and_written_again_to_the_same_bytes(
    local_store: Store, cifar100_archive: Path
):
    manifest, _ = prepare(local_store, "cifar100", str(cifar100_archive))
    key = manifest_key("cifar100", manifest.digest)
    whole, content = local_store.read(key), local_store.read_json(key)
    del content["left_out"]
    for field in ("test_split", "converted_images"):
        del content["source"][field]
    local_store.write_json(key, content)
    assert load_manifest(local_store, "cifar100").left_out is None
    assert inspect_dataset(local_store, "cifar100")["left_out"] is None
    assert prepare(local_store, "cifar100", str(cifar100_archive))[1]
    assert local_store.read(key) == whole


class Counting(LeftOutCounter):
    """Shows what was counted in tuples."""

    def found(self) -> list[Any]:
        return counted(self.entries())


def test_columns_and_files_of_a_cifar_archive_are_counted(tmp_path: Path):
    import shutil

    path = write_cifar100(tmp_path / "a.tar.gz", 1, 1)
    shutil.unpack_archive(path, tmp_path / "c")
    for name in ("file.txt~", "readme.html", "extra.bin"):
        (tmp_path / "c" / "cifar-100-python" / name).write_text("-")
    counter = Counting()
    read_cifar(CIFAR100, tmp_path / "c", counter)
    assert counter.found() == [
        ("column", "column left out: batch_label", "test", None, 1),
        ("column", "column left out: batch_label", "train", None, 1),
        ("column", "column left out: filenames", "test", None, 1),
        ("column", "column left out: filenames", "train", None, 1),
        ("file", "not a file of the layout", None, None, 1),
        ("litter", "hidden or system file", None, None, 1),
        ("litter", "readme, license or the like", None, None, 1),
    ]


@pytest.mark.parametrize("name", ["cifar-100-python.subset.tar.gz"])
def test_of_a_real_archive_nothing_but_columns_is_left_out(
    name: str, local_store: Store, test_data: Path
):
    manifest, _ = prepare(local_store, "cifar100", str(test_data / name), Silent())
    assert {entry.kind for entry in manifest.left_out or ()} <= {"column", "litter"}
    assert manifest.source.skipped_images == 0
