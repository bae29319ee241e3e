"""Archives of image files become datasets, row for row and byte for byte."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cifarray.data.catalog import DATASETS
from cifarray.data.decode import decode
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.inspect import inspect_dataset
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.parquet import image_array, read_columns
from cifarray.data.verify import verify_dataset
from cifarray.errors import ArchiveError
from cifarray.store import Store
from tests.image_archives import (
    SIZES,
    bird_files,
    encoded,
    folder_files,
    hub_tables,
    picture,
    write_folder,
    write_tar_of,
    write_zip_of,
)

Files = dict[str, Any]
ONE_SIZE = ((12, 10),)
FOLDER, HUB = Ingest("imagefolder"), Ingest("huggingface")


def prepared(store: Store, path: Path, how: Ingest, name: str = "mine") -> Manifest:
    manifest, written = prepare(store, name, str(path), how=how)
    assert written
    assert load_manifest(store, name) == manifest
    assert verify_dataset(store, name) == []
    return manifest


def rows_of(store: Store, manifest: Manifest, split: str) -> list[tuple[bytes, str]]:
    """The stored bytes and the class of each row, by row_id."""
    table = read_columns(store, manifest, split, ["image", "label", "row_id"]).sort_by("row_id")
    names = [manifest.classes[label] for label in table["label"].to_pylist()]
    return list(zip(table["image"].to_pylist(), names, strict=True))


def class_rows(files: Mapping[str, bytes], split: str) -> list[tuple[bytes, str]]:
    """The same of files in folders of their classes."""
    return [(files[n], n.split("/")[1]) for n in sorted(files) if n.startswith(f"{split}/")]


@pytest.mark.parametrize("write", [write_folder, write_tar_of, write_zip_of])
def test_a_folder_of_images_keeps_the_bytes_of_every_file(
    write: Callable[[Path, Files], Path], local_store: Store, tmp_path: Path
):
    files = folder_files(("zebra", "ant", "Bee"))
    manifest = prepared(local_store, write(tmp_path / "given", files), FOLDER)
    assert (manifest.shape, manifest.storage) == (None, "encoded")
    assert manifest.classes == ("Bee", "ant", "zebra")
    for split in ("train", "test"):
        assert rows_of(local_store, manifest, split) == class_rows(files, split)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_images_of_one_size_are_stored_as_pixels(
    mode: str, channels: int, local_store: Store, tmp_path: Path
):
    pictures = {
        f"{split}/{name}/{number}.png": picture(label, number, (12, 10)).convert(mode)
        for split in ("train", "test")
        for label, name in enumerate(("cat", "dog"))
        for number in range(4)
    }
    folder = write_folder(tmp_path / "given", {n: encoded(i) for n, i in pictures.items()})
    manifest = prepared(local_store, folder, FOLDER)
    assert (manifest.shape, manifest.storage) == ((12, 10, channels), "fixed")
    table = read_columns(local_store, manifest, "train", ["image", "row_id"]).sort_by("row_id")
    expected = [np.asarray(pictures[n]) for n in sorted(pictures) if n.startswith("train/")]
    found = image_array(table["image"], manifest.shape or ())
    assert np.array_equal(found, np.stack(expected).reshape(found.shape))
    scaled = np.stack(expected).reshape(found.shape) / 255
    assert np.allclose(manifest.mean, scaled.mean((0, 1, 2)))


def test_large_images_of_one_size_keep_their_bytes(local_store: Store, tmp_path: Path):
    files = folder_files(train=1, test=1, sizes=((300, 20),))
    assert prepared(local_store, write_folder(tmp_path / "given", files), FOLDER).shape is None


def test_mean_and_std_are_numpys_over_the_pixels_of_every_size(local_store: Store, tmp_path: Path):
    files = folder_files()
    manifest = prepared(local_store, write_folder(tmp_path / "given", files), FOLDER)
    pixels = np.concatenate(
        [np.asarray(decode(content)).reshape(-1, 3) for content, _ in class_rows(files, "train")]
    )
    np.testing.assert_allclose(manifest.mean, (pixels / 255).mean(0), rtol=1e-12)
    np.testing.assert_allclose(manifest.std, (pixels / 255).std(0), rtol=1e-12)
    found = inspect_dataset(local_store, "mine")["splits"]["train"]
    assert found["channel_mean"] == list(manifest.mean)
    assert (found["heights"], found["widths"]) == ([24, 40], [20, 33])


@pytest.mark.parametrize("how", [FOLDER, HUB, Ingest()], ids=["folder", "hub", "birds"])
def test_the_same_archive_gives_the_same_bytes_and_another_one_another_digest(
    how: Ingest, tmp_path: Path
):
    files: Files = {FOLDER: folder_files(), HUB: hub_tables()}.get(how) or bird_files()
    name = "mine" if how.layout else "cub200"
    contents = []
    for number in range(2):
        store = Store.open(str(tmp_path / f"store{number}"))
        prepared(store, write_folder(tmp_path / f"given{number}" / "images", files), how, name)
        contents.append({entry.key: store.read(entry.key) for entry in store.list("")})
    assert contents[0] == contents[1]
    *_, last = (name for name in sorted(files) if name.endswith((".jpg", ".parquet")))
    del files[last]
    other = prepared(store, write_folder(tmp_path / "other", files), how, name)
    assert other.digest not in {load_manifest(store, name, d).digest for d in _others(store, other)}


def _others(store: Store, manifest: Manifest) -> list[str]:
    return [d for d in store.folders(f"datasets/{manifest.name}") if d != manifest.digest[:12]]


@pytest.mark.parametrize("sizes", [None, ONE_SIZE], ids=["encoded", "fixed"])
@pytest.mark.parametrize("column", ["image", "img"])
def test_the_hubs_shards_come_out_row_for_row(
    sizes: Any, column: str, local_store: Store, tmp_path: Path
):
    tables = hub_tables(sizes or SIZES, column=column)
    manifest = prepared(local_store, write_folder(tmp_path / "given", tables), HUB)
    assert manifest.classes == ("cat", "dog")
    assert manifest.shape == ((12, 10, 3) if sizes else None)
    train = pa.concat_tables([t for name, t in tables.items() if "train" in name])
    rows = rows_of(local_store, manifest, "train")
    assert [name for _, name in rows] == [("cat", "dog")[k] for k in train["label"].to_pylist()]
    for (found, _), given in zip(rows, train[column].to_pylist(), strict=True):
        expected = np.asarray(decode(given["bytes"])).tobytes() if sizes else given["bytes"]
        assert found == expected


def test_what_the_datasets_package_writes_is_read(local_store: Store, tmp_path: Path):
    import datasets

    names = ["cat", "dog"]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    pictures = [picture(row % 2, row, SIZES[row % 3]) for row in range(9)]
    for split in ("train", "test"):
        rows = {"image": pictures, "label": [row % 2 for row in range(9)]}
        made = datasets.Dataset.from_dict(rows, features=features)
        (tmp_path / "given").mkdir(exist_ok=True)
        made.to_parquet(str(tmp_path / "given" / f"{split}-00000-of-00001.parquet"))
    manifest = prepared(local_store, tmp_path / "given", HUB)
    assert manifest.classes == ("cat", "dog")
    stored = rows_of(local_store, manifest, "train")
    assert [name for _, name in stored] == [names[row % 2] for row in range(9)]
    for (content, _), image in zip(stored, pictures, strict=True):
        assert np.array_equal(np.asarray(decode(content)), np.asarray(image))


def test_a_validation_split_of_the_hub_is_left_out_and_that_is_said(
    local_store: Store, tmp_path: Path
):
    tables = hub_tables()
    tables["data/validation-00000.parquet"] = tables["data/test-00000.parquet"]
    folder = write_folder(tmp_path / "given", tables)
    manifest = prepared(local_store, folder, HUB)
    assert {split: part.rows for split, part in manifest.splits.items()} == {"train": 12, "test": 6}
    (left_out,) = manifest.left_out or ()
    assert (left_out.kind, left_out.split, left_out.count) == ("split", "validation", 6)
    assert not manifest.source.complete


def test_shards_that_are_not_there_are_counted(local_store: Store, tmp_path: Path):
    tables = hub_tables()
    del tables["data/train-00001-of-00002.parquet"]
    folder = write_folder(tmp_path / "given", tables)
    manifest = prepared(local_store, folder, HUB)
    (left_out,) = manifest.left_out or ()
    assert (left_out.kind, left_out.split, left_out.count) == ("absent", "train", 1)
    assert not manifest.source.complete


@pytest.mark.parametrize("sizes", [None, ONE_SIZE], ids=["encoded", "fixed"])
def test_what_is_written_opens_in_the_datasets_package(
    sizes: Any, local_store: Store, tmp_path: Path
):
    import datasets

    files = folder_files(sizes=sizes or SIZES)
    manifest = prepared(local_store, write_folder(tmp_path / "given", files), FOLDER)
    parts = local_store.path(f"datasets/mine/{manifest.digest[:12]}")
    loaded = datasets.load_dataset(
        "parquet",
        data_files={split: f"{parts}/{split}/*.parquet" for split in ("train", "test")},
        cache_dir=str(tmp_path / "cache"),
    )
    for split in ("train", "test"):
        rows = sorted(loaded[split], key=lambda row: row["row_id"])
        stored = rows_of(local_store, manifest, split)
        assert [(row["image"], manifest.classes[row["label"]]) for row in rows] == stored


@pytest.mark.parametrize("write", [write_folder, write_tar_of])
def test_the_birds_are_read_as_published(
    write: Callable[[Path, Files], Path], local_store: Store, tmp_path: Path
):
    files = bird_files()
    manifest = prepared(local_store, write(tmp_path / "given", files), Ingest(), "cub200")
    assert manifest.classes == DATASETS["cub200"].classes
    assert (manifest.source.complete, manifest.source.missing_images) == (False, 0)
    images = [content for name, content in files.items() if name.endswith(".jpg")]
    for split, first in (("train", 0), ("test", 1)):
        stored = rows_of(local_store, manifest, split)
        assert [content for content, _ in stored] == images[first::2]
        assert [name for _, name in stored] == [manifest.classes[k] for k in (0, 0, 1, 1, 2, 2)]


def test_listed_birds_that_are_not_there_are_counted(local_store: Store, tmp_path: Path):
    files = bird_files()
    gone = [name for name in files if name.endswith(("1.jpg", "2.jpg"))]
    files = {name: content for name, content in files.items() if name not in gone}
    manifest = prepared(local_store, write_folder(tmp_path / "given", files), Ingest(), "cub200")
    assert manifest.source.missing_images == len(gone) == 6
    assert {split: part.rows for split, part in manifest.splits.items()} == {"train": 3, "test": 3}


def test_cropped_birds_are_the_pixels_of_their_boxes_under_a_digest_of_their_own(
    local_store: Store, tmp_path: Path
):
    files = bird_files()
    folder = write_folder(tmp_path / "given", files)
    whole = prepared(local_store, folder, Ingest(), "cub200")
    cropped = prepared(local_store, folder, Ingest(crop=True), "cub200")
    assert cropped.digest != whole.digest
    assert (whole.source.crop, cropped.source.crop) == (False, True)
    for split in ("train", "test"):
        pairs = zip(
            rows_of(local_store, whole, split), rows_of(local_store, cropped, split), strict=True
        )
        for (before, _), (after, _) in pairs:
            image = np.asarray(decode(before))
            box = image[2 : 2 + len(image) - 5, 4 : 4 + image.shape[1] - 6]
            assert np.array_equal(np.asarray(decode(after)), box)


def test_images_that_do_not_decode_are_left_out_and_counted(local_store: Store, tmp_path: Path):
    files = folder_files()
    files["train/cat/002.jpg"] = b"rubbish"
    files["test/dog/001.png"] = files["test/dog/001.png"][:100]
    folder = write_folder(tmp_path / "given", files)
    with pytest.raises(ArchiveError, match=r"train row_id 2, train/cat/002\.jpg, does not decode"):
        prepare(local_store, "mine", str(folder), how=FOLDER)
    assert local_store.list("") == []
    with pytest.raises(ArchiveError, match="1 of 3 images of class 'dog' in test would be left"):
        prepare(local_store, "mine", str(folder), how=Ingest("imagefolder", skip_bad=True))
    assert local_store.list("") == []
    skipping = Ingest("imagefolder", skip_bad=True, accept_loss=True)
    manifest = prepared(local_store, folder, skipping)
    assert manifest.source.skipped_images == 2
    assert not manifest.source.complete
    assert [(e.reason, e.split, e.class_name, e.count) for e in manifest.left_out or ()] == [
        ("unreadable", "test", "dog", 1),
        ("unreadable", "train", "cat", 1),
    ]
    assert manifest.splits["train"].rows == 11
    del files["train/cat/002.jpg"]
    assert rows_of(local_store, manifest, "train") == class_rows(files, "train")


def test_hidden_folders_among_the_classes_are_passed_over(local_store: Store, tmp_path: Path):
    files = folder_files()
    hidden = {"train/.ipynb_checkpoints/000-checkpoint.jpg": files["train/cat/000.jpg"]}
    manifest = prepared(local_store, write_folder(tmp_path / "given", files | hidden), FOLDER)
    assert manifest.classes == ("cat", "dog")
    assert rows_of(local_store, manifest, "train") == class_rows(files, "train")


@pytest.mark.parametrize("write", [write_folder, write_tar_of, write_zip_of])
def test_files_that_are_not_read_are_counted(
    write: Callable[[Path, Files], Path], local_store: Store, tmp_path: Path
):
    files = folder_files()
    image = files["train/cat/000.jpg"]
    others = {"train/cat/deeper/9.jpg": image, "train/dog/9.heic": image, "val/cat/9.jpg": image}
    notes = {".DS_Store": b"-", "train/cat/.hidden.jpg": b"-", "train/cat/0.txt": b"a cat"}
    given = write(tmp_path / "given", files | others | notes)
    with pytest.raises(ArchiveError, match="1 of 7 images of class 'cat' in train would be left"):
        prepare(local_store, "mine", str(given), how=FOLDER)
    manifest = prepared(local_store, given, Ingest("imagefolder", accept_loss=True))
    assert [
        (e.kind, e.reason, e.split, e.class_name, e.count) for e in manifest.left_out or ()
    ] == [
        ("image", "not directly in train/CLASS/ or test/CLASS/", "train", "cat", 1),
        ("image", "unsupported format: .heic", "train", "dog", 1),
        ("split", "a split that is not used", "val", "cat", 1),
        ("file", "not an image: .txt", "train", "cat", 1),
        ("litter", "hidden or system file", None, None, 2),
    ]
    assert manifest.source.skipped_images == 2
    assert rows_of(local_store, manifest, "train") == class_rows(files, "train")


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint64(), pa.int32()])
def test_labels_of_any_whole_type_are_read(kind: Any, local_store: Store, tmp_path: Path):
    tables = hub_tables()
    for name, table in tables.items():
        place = table.schema.get_field_index("label")
        tables[name] = table.set_column(place, "label", table["label"].cast(kind))
    manifest = prepared(local_store, write_folder(tmp_path / "given", tables), HUB)
    assert manifest.splits["train"].class_counts == (6, 6)
