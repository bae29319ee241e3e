"""What is wrong with an archive of image files is one sentence, and nothing of it is written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cifarray.data.ingest import Ingest, prepare
from cifarray.errors import ArchiveError, DatasetError, InputError
from cifarray.store import Store
from tests.image_archives import (
    bird_files,
    encoded,
    folder_files,
    hub_shard,
    hub_tables,
    picture,
    write_folder,
)

Files = dict[str, Any]
FOLDER, HUB = Ingest("imagefolder"), Ingest("huggingface")


def changed(files: Files, gone: str = "", **more: Any) -> Files:
    kept = {name: content for name, content in files.items() if not gone or gone not in name}
    return kept | {name.replace("__", "/").replace("_txt", ".txt"): c for name, c in more.items()}


SOUND = encoded(picture(0, 0))
BAD_FOLDERS: list[tuple[Files, str]] = [
    ({"readme.txt": b""}, r"no file of the layout imagefolder; arrange it as train/CLASS/x\.jpg"),
    (changed(folder_files(), "train/"), r"contains no image in train/CLASS/; both train and test"),
    (changed(folder_files(), "test/"), r"contains no image in test/CLASS/; both train and test"),
    (changed(folder_files(), "/cat"), "contains one class, 'dog'; at least two classes are"),
    (
        changed(folder_files(), "test/cat"),
        "6 of 6 .*'cat' in train .*no image in test",
    ),
    (
        changed(folder_files(), "train/cat"),
        "3 of 3 .*'cat' in test .*no image in train",
    ),
    (changed(folder_files(), train__cow__notes=b""), "1 of 1 images of class 'cow' in train"),
    ({f"{at}/{n}": c for at in "ab" for n, c in folder_files().items()}, "in 'a' and in 'b'; give"),
]
LISTS = bird_files()
BAD_BIRDS: list[tuple[Files, str]] = [
    (changed(LISTS, "classes.txt"), r"lacks classes\.txt; is it another dataset's"),
    (changed(LISTS, "images.txt"), r"lacks images\.txt; is it another"),
    (changed(LISTS, ".jpg"), "contains none of the images that images.txt lists for train; unpack"),
    (changed(LISTS, classes_txt=b"1 001.Cat\n"), r"names are not those of CUB.*'Cat' differs"),
    (changed(LISTS, images_txt=b"\xff\xfe"), r"images\.txt, is not text; download"),
    (changed(LISTS, images_txt=b"1 a\n1 b\n"), r"images\.txt, line 2: '1 b' is not a new id"),
    (changed(LISTS, images_txt=b"999 a.jpg\n"), r"train_test_split\.txt, image 999: is missing"),
    (
        changed(LISTS, image_class_labels_txt=LISTS["image_class_labels.txt"] + b"", **{
            "train_test_split_txt": b"1 2\n"}),
        r"train_test_split\.txt, image 1: is neither 0 nor 1",
    ),
    (
        changed(LISTS, image_class_labels_txt=b"1 201\n"),
        r"image_class_labels\.txt, image 1: class '201' does not exist; 1 to 200 are allowed",
    ),
    (changed(LISTS, image_class_labels_txt=b"1 0000000019999999\n"), "does not exist; 1 to 200"),
]  # fmt: skip
FEATURELESS = hub_shard([SOUND] * 2, [0, 1]).replace_schema_metadata({})
SWAPPED = hub_shard([SOUND] * 2, [0, 1], ("dog", "cat"))
TWO = hub_shard([SOUND] * 2, [0, 1])
TWICE = TWO.append_column("label", TWO["label"])
BOMB = hub_shard([encoded(picture(0, 0, (150, 150)))] * 3000, [0, 1] * 1500)
ENDLESS = hub_shard([None] * 300_000, [0] * 300_000)
BAD_SHARDS: list[tuple[Files, str]] = [
    ({"train-0.parquet": hub_shard([SOUND] * 2, [0, 1])}, r"contains no test-\*\.parquet"),
    ({"test-0.parquet": hub_shard([SOUND] * 2, [0, 1])}, r"contains no train-\*\.parquet"),
    (
        {"train-0.parquet": b"", "dev-0.parquet": b""},
        r"; to test on dev, add --test-split dev",
    ),
    ({"test-0.parquet": b"", "dev-0.parquet": b""}, r"both train and test are required$"),
    ({"train-0.parquet": b"PAR1", "test-0.parquet": b"PAR1"}, "is not a valid Parquet file"),
    ({"train-0.parquet": TWICE, "test-0.parquet": TWO}, "two columns called label; remove one"),
    ({"train-0.parquet": BOMB, "test-0.parquet": TWO}, "unpacks to more than 50 times its own"),
    ({"train-0.parquet": ENDLESS, "test-0.parquet": TWO}, "declares 300000 rows, more than its"),
    ({"a/train-0.parquet": b"", "b/test-0.parquet": b""}, "shards in 'a' and in 'b'; give one of"),
    (changed(hub_tables(), **{"data__train-00000-of-00002.parquet": FEATURELESS}), "names no cl"),
    (
        changed(hub_tables(), **{"data__test-00000.parquet": SWAPPED}),
        "differs from the first shard of train in its columns",
    ),
]


@pytest.mark.parametrize(
    ("how", "files", "sentence"),
    [
        *((FOLDER, *case) for case in BAD_FOLDERS),
        *((Ingest(), *case) for case in BAD_BIRDS),
        *((HUB, *case) for case in BAD_SHARDS),
    ],
)
def test_an_archive_that_is_none_is_refused_in_one_sentence(
    how: Ingest, files: Files, sentence: str, local_store: Store, tmp_path: Path
):
    folder = write_folder(tmp_path / "given", files)
    with pytest.raises(ArchiveError, match=sentence) as caught:
        prepare(local_store, "mine" if how.layout else "cub200", str(folder), how=how)
    assert "\n" not in str(caught.value)
    assert local_store.list("") == []


@pytest.mark.parametrize(
    ("images", "labels", "classes", "sentence"),
    [
        (
            [SOUND] * 3,
            [0, 1, 2],
            ("a", "b"),
            r"1 of 3 .*names no class, such as row 2 of t",
        ),
        (
            [SOUND] * 3,
            [0, -1, 1],
            ("a", "b"),
            r"1 of 3 .*label -1, such as row 1 of test-0",
        ),
        (
            [SOUND] * 3,
            [0, None, 1],
            ("a", "b"),
            r"1 of 3 .*no label, such as row 1 of test-0",
        ),
        ([SOUND, None], [0, 1], ("a", "b"), r"test row_id 1, row 1 of test-0\.parquet, does not d"),
        ([SOUND, b"x"], [0, 1], ("a", "b"), r"test row_id 1, row 1 of test-0\.parquet, does not d"),
        (
            [SOUND] * 2,
            [0, 0],
            ("a", "b"),
            "1 of 1 .*'b' in train .*class has no row in test",
        ),
    ],
)
def test_a_shards_bad_row_is_named(
    images: Any, labels: Any, classes: Any, sentence: str, local_store: Store, tmp_path: Path
):
    good = hub_shard([SOUND] * 2, [0, 1], classes)
    bad = hub_shard(images, labels, classes)
    folder = write_folder(tmp_path / "given", {"train-0.parquet": good, "test-0.parquet": bad})
    with pytest.raises(ArchiveError, match=sentence):
        prepare(local_store, "mine", str(folder), how=HUB)


def test_shards_of_one_class_or_of_names_that_are_no_texts_are_refused(
    local_store: Store, tmp_path: Path
):
    for number, (classes, sentence) in enumerate(
        [
            (("a",), "contains one class, 'a'"),
            (("a", "a"), "occurs twice"),
            ((1, 2), "is not text"),
            (("a", ""), "is not text"),
        ]
    ):
        shard = hub_shard([SOUND], [0], classes)  # type: ignore[arg-type]
        files = {"train-0.parquet": shard, "test-0.parquet": shard}
        folder = write_folder(tmp_path / str(number), files)
        with pytest.raises(ArchiveError, match=sentence):
            prepare(local_store, "mine", str(folder), how=HUB)


@pytest.mark.parametrize(
    ("name", "archive", "how", "kind", "sentence"),
    [
        ("mine", None, FOLDER, ArchiveError, "mine has no --archive; give the path of a folder"),
        ("mine", "http://x/y.zip", FOLDER, ArchiveError, "has the address http://x/y.zip; give"),
        ("mine", "nowhere", FOLDER, ArchiveError, "no archive at nowhere"),
        ("mine", ".", Ingest("folder"), DatasetError, "unknown layout 'folder'; choose from: hugg"),
        ("cifar10", ".", FOLDER, DatasetError, "cifar10 is a dataset of the catalog, which has"),
        ("My Cats", ".", FOLDER, DatasetError, "cannot name a dataset 'My Cats'; a name has lower"),
        ("../x", ".", FOLDER, DatasetError, "cannot name a dataset"),
        ("mine", ".", Ingest(), DatasetError, "unknown dataset 'mine'; .*prepare mine --layout im"),
        ("cifar10", None, Ingest(crop=True), InputError, "cifar10 has no bounding boxes to crop"),
        ("mine", ".", Ingest("imagefolder", crop=True), InputError, "mine has no bounding boxes"),
        ("digits", None, Ingest(skip_bad=True), InputError, "arrays of pixels, which always"),
    ],
)
def test_what_does_not_go_together_is_refused(
    name: str, archive: str | None, how: Ingest, kind: type[Exception], sentence: str,
    local_store: Store,
):  # fmt: skip
    with pytest.raises(kind, match=sentence):
        prepare(local_store, name, archive, how=how)


def test_a_temporary_folder_that_is_full_is_named(tmp_path: Path):
    given = write_folder(tmp_path / "given", folder_files())
    command = (
        "import resource, signal, sys\n"
        "from cifarray.data.ingest import Ingest, prepare\n"
        "from cifarray.errors import ArchiveError\n"
        "from cifarray.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    store = Store.open(sys.argv[2])\n"
        "    prepare(store, 'mine', sys.argv[1], how=Ingest('imagefolder'))\n"
        "except ArchiveError as error:\n"
        "    print(error)\n"
    )
    words = [sys.executable, "-c", command, str(given), str(tmp_path / "store")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "set TMPDIR to a folder with enough space" in done.stdout
