"""The published datasets in the other forms in which people have them: the same rows."""

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cifarray.data.catalog import CIFAR10, CIFAR100, FASHION_MNIST, DatasetEntry
from cifarray.data.ingest import Ingest, prepare
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.base import SplitArrays, check_splits
from cifarray.data.readers.cifar import read_cifar
from cifarray.data.readers.idx import read_idx
from cifarray.errors import ArchiveError
from cifarray.store import Store
from tests.archives import write_cifar10, write_cifar100, write_fashion_mnist
from tests.image_archives import folder_files, hub_tables, write_folder, write_tar_of

REAL = {"cifar100": "cifar-100-python.subset.tar.gz", "cifar10": "cifar-10-python.subset.tar.gz"}
WRITERS: dict[str, Callable[[Path], Path]] = {"cifar100": write_cifar100, "cifar10": write_cifar10}
ENTRIES = {"cifar100": CIFAR100, "cifar10": CIFAR10}
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n".encode()


@pytest.fixture(scope="module", params=["cifar100", "cifar10"])
def entry(request: pytest.FixtureRequest) -> DatasetEntry:
    return ENTRIES[request.param]


@pytest.fixture(scope="module", params=["real", "made"])
def archive(
    request: pytest.FixtureRequest, entry: DatasetEntry, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tar.gz as published, of real images where they are there."""
    if request.param == "real":
        folder: Path = request.getfixturevalue("test_data")
        return folder / REAL[entry.name]
    return WRITERS[entry.name](tmp_path_factory.mktemp("made") / "archive.tar.gz")


def assert_same(found: dict[str, SplitArrays], expected: dict[str, SplitArrays]) -> None:
    assert found.keys() == expected.keys()
    for split, arrays in expected.items():
        assert np.array_equal(found[split].images, arrays.images)
        assert np.array_equal(found[split].labels, arrays.labels)
        assert found[split].parts == arrays.parts
        if arrays.coarse_labels is not None:
            assert np.array_equal(found[split].coarse_labels, arrays.coarse_labels)


def as_kaggle(archive: Path, path: Path) -> Path:
    """A zip of the files without their folder, and the hidden files of a Mac."""
    with tarfile.open(archive) as tar, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for member in tar:
            file = tar.extractfile(member)
            if file:
                out.writestr(Path(member.name).name, file.read())
        out.writestr("__MACOSX/._train", b"-")
    return path


def as_windows(archive: Path, path: Path) -> Path:
    """A zip whose folders are parted by backslashes."""
    with tarfile.open(archive) as tar, zipfile.ZipFile(path, "w") as out:
        for member in tar:
            file = tar.extractfile(member)
            if file:
                info = zipfile.ZipInfo("x")
                info.filename = member.name.replace("/", "\\")
                out.writestr(info, file.read())
    return path


def as_bzip2(archive: Path, path: Path) -> Path:
    path.write_bytes(bz2.compress(gzip.decompress(archive.read_bytes()), 1))
    return path


def as_binary(entry: DatasetEntry, arrays: dict[str, SplitArrays], folder: Path) -> Path:
    """The version for C programs: a byte for each label, the coarse one first, then the planes."""
    for split, names in entry.binary_members.items():
        if split == "names":
            lists = (entry.classes, entry.coarse_classes)
            for name, listed in zip(names, lists, strict=False):
                (folder / name).write_text("\n".join(listed) + "\n\n")
            continue
        rows = arrays[split]
        labels = [rows.labels] if rows.coarse_labels is None else [rows.coarse_labels, rows.labels]
        planes = rows.images.transpose(0, 3, 1, 2).reshape(rows.rows, -1)
        whole = np.concatenate([np.stack(labels, axis=1).astype(np.uint8), planes], axis=1)
        first = 0
        counts = [count for _, count in rows.parts] or [rows.rows]
        for name, count in zip(names, counts, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(whole[first : first + count].tobytes())
            first += count
    return folder


@pytest.mark.parametrize("form", [as_kaggle, as_windows, as_bzip2])
def test_another_packing_holds_the_same_rows(
    form: Callable[[Path, Path], Path], entry: DatasetEntry, archive: Path, tmp_path: Path
):
    assert_same(read_cifar(entry, form(archive, tmp_path / "given")), read_cifar(entry, archive))


@pytest.mark.parametrize("packed", [False, True])
def test_the_binary_version_holds_the_same_rows(
    packed: bool, entry: DatasetEntry, archive: Path, tmp_path: Path
):
    expected = read_cifar(entry, archive)
    given = as_binary(entry, expected, tmp_path / "given")
    if packed:
        given = Path(shutil.make_archive(str(tmp_path / "binary"), "gztar", given))
    found = read_cifar(entry, given)
    check_splits(entry, found)
    assert_same(found, expected)


def test_of_both_versions_one_is_read_and_the_other_counted(tmp_path: Path):
    archive = write_cifar100(tmp_path / "c.tar.gz", 1, 1)
    shutil.unpack_archive(archive, tmp_path / "given")
    expected = read_cifar(CIFAR100, archive)
    counter = LeftOutCounter()
    given = as_binary(CIFAR100, expected, tmp_path / "given")
    assert_same(read_cifar(CIFAR100, given, counter), expected)
    reasons = {entry.reason: entry.count for entry in counter.entries() if entry.kind == "file"}
    assert reasons["the same rows in another form"] == 4


def test_a_binary_file_that_is_cut_or_anothers_is_refused(tmp_path: Path):
    arrays = read_cifar(CIFAR10, write_cifar10(tmp_path / "c.tar.gz", 5, 1))
    given = as_binary(CIFAR10, arrays, tmp_path / "given")
    test = given / "cifar-10-batches-bin" / "test_batch.bin"
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(ArchiveError, match=r"bytes, which is not a whole number of rows of 3073"):
        read_cifar(CIFAR10, given)
    as_binary(CIFAR10, arrays, given)
    (given / "cifar-10-batches-bin" / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(ArchiveError, match=r"batches\.meta\.txt are not those of CIFAR-10"):
        read_cifar(CIFAR10, given)
    shutil.rmtree(given / "cifar-10-batches-bin")
    as_binary(CIFAR10, arrays, given)
    test.unlink()
    with pytest.raises(ArchiveError, match=r"lacks cifar-10-batches-bin/test_batch\.bin; is it an"):
        read_cifar(CIFAR10, given)


def unpacked_idx(packed: Path, folder: Path, dotted: bool = False) -> Path:
    folder.mkdir()
    for file in packed.glob("*.gz"):
        name = file.name.removesuffix(".gz")
        name = name.replace("-idx", ".idx") if dotted else name
        (folder / name).write_bytes(gzip.decompress(file.read_bytes()))
    return folder


@pytest.fixture(scope="module", params=["real", "made"])
def fashion(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        folder: Path = request.getfixturevalue("test_data")
        return folder / "fashion-mnist.subset"
    return write_fashion_mnist(tmp_path_factory.mktemp("made") / "idx")


@pytest.mark.parametrize("form", ["unpacked", "dotted", "zip", "tar"])
def test_unpacked_idx_files_hold_the_same_rows(form: str, fashion: Path, tmp_path: Path):
    given = unpacked_idx(fashion, tmp_path / "given", dotted=form == "dotted")
    if form == "zip":
        given = Path(shutil.make_archive(str(tmp_path / "idx"), "zip", given))
    elif form == "tar":
        given = Path(shutil.make_archive(str(tmp_path / "idx"), "bztar", given))
    store = Store.open(str(tmp_path / "store"))
    manifest, _ = prepare(store, "fashion-mnist", str(given))
    assert manifest.left_out == ()
    assert_same(read_idx(FASHION_MNIST, given), read_idx(FASHION_MNIST, fashion))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (POINTER, r"is a Git LFS pointer .*run `git lfs pull`"),
        (
            lzma.compress(b"x"),
            "is compressed with xz, which cifarray does not support; unpack it and give the",
        ),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "is compressed with 7-Zip, which cifarray does not"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "is compressed with Zstandard, which cifarray does not"),
        (b"Rar!\x1a\x07" + bytes(99), "is compressed with RAR, which cifarray does not"),
        (b"\n<!DOCTYPE html><title>Sign in", "is a web page, not an archive; download the file"),
    ],
)
@pytest.mark.parametrize("layout", [None, "imagefolder"])
def test_a_sound_file_that_is_no_archive_here_is_called_what_it_is(
    layout: str | None, content: bytes, sentence: str, local_store: Store, tmp_path: Path
):
    (tmp_path / "given.tar").write_bytes(content)
    name = "mine" if layout else "cifar100"
    with pytest.raises(ArchiveError, match=sentence) as caught:
        prepare(local_store, name, str(tmp_path / "given.tar"), how=Ingest(layout))
    assert "download it again" not in str(caught.value)


@pytest.mark.parametrize("kind", ["shard", "image", "pickle", "idx"])
def test_a_git_lfs_pointer_in_place_of_a_file_is_called_one(
    kind: str, local_store: Store, tmp_path: Path
):
    given, name, how = tmp_path / "given", "mine", Ingest("huggingface")
    if kind == "shard":
        write_folder(given, hub_tables() | {"data/test-00000.parquet": POINTER})
    elif kind == "image":
        how = Ingest("imagefolder", skip_bad=True, accept_loss=True)
        write_folder(given, folder_files() | {"train/cat/000.jpg": POINTER})
    elif kind == "pickle":
        name, how = "cifar100", Ingest()
        shutil.unpack_archive(write_cifar100(tmp_path / "a.tar.gz", 1, 1), given)
        (given / "cifar-100-python/train").write_bytes(POINTER)
    else:
        name, how = "fashion-mnist", Ingest()
        write_fashion_mnist(given)
        (given / "train-images-idx3-ubyte.gz").write_bytes(POINTER)
    with pytest.raises(ArchiveError, match=r"is a Git LFS pointer .*run `git lfs pull` in that"):
        prepare(local_store, name, str(given), how=how)


def test_a_zip_that_asks_for_a_password_says_so(tmp_path: Path):
    path = tmp_path / "locked.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train", b"x" * 100)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of the local header, and of the directory's entry
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"locked\.zip is encrypted .* unpack it with its passw"):
        read_cifar(CIFAR100, path)


def test_a_packing_of_a_zip_that_python_lacks_is_named(tmp_path: Path):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train", b"x" * 100)
    content = bytearray(path.read_bytes())
    content[8] = 9  # Deflate64
    content[content.index(b"PK\x01\x02") + 10] = 9
    path.write_bytes(content)
    with pytest.raises(
        ArchiveError, match=r"method that cifarray does not support .* unpack it and give"
    ):
        read_cifar(CIFAR100, path)


@pytest.mark.parametrize("name", ["..\\out.jpg", "a\\..\\..\\out.jpg", "\\\\server\\out.jpg"])
def test_a_backslash_leads_no_further_out_of_a_zip_than_a_slash(
    name: str, local_store: Store, tmp_path: Path
):
    with zipfile.ZipFile(tmp_path / "given.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, b"x")
    for dataset, how in (("mine", Ingest("imagefolder")), ("cifar100", Ingest())):
        with pytest.raises(ArchiveError, match="a path outside the archive; it is refused"):
            prepare(local_store, dataset, str(tmp_path / "given.zip"), how=how)


def test_one_place_under_two_spellings_in_a_zip_is_refused(local_store: Store, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "given.zip", "w") as archive:
        for name in ("train/cat/0.jpg", "train\\cat\\0.jpg"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, b"x")
    with pytest.raises(ArchiveError, match=r"contains 'train/cat/0\.jpg' twice; it is refused"):
        prepare(local_store, "mine", str(tmp_path / "given.zip"), how=Ingest("imagefolder"))


def test_a_link_in_a_tar_that_no_image_needs_is_counted(local_store: Store, tmp_path: Path):
    path = write_tar_of(tmp_path / "given.tar.gz", folder_files())
    plain = io.BytesIO(gzip.decompress(path.read_bytes()))
    with tarfile.open(fileobj=plain, mode="a") as tar:
        for name in ("archive/README", "archive/latest"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    (tmp_path / "given.tar").write_bytes(plain.getvalue())
    manifest, _ = prepare(
        local_store, "mine", str(tmp_path / "given.tar"), how=Ingest("imagefolder")
    )
    assert {(e.kind, e.reason) for e in manifest.left_out or ()} == {
        ("litter", "readme, license or the like"),
        ("litter", "link that is not an image"),
    }


def test_a_class_in_two_unicode_forms_is_one_class(local_store: Store, tmp_path: Path):
    files = {}
    for name, content in folder_files(("cafe\u0301", "dog")).items():
        composed = name.startswith("test/") or name.endswith("0.jpg")
        files[name.replace("e\u0301", "\u00e9") if composed else name] = content
    given = write_folder(tmp_path / "given", files)
    manifest, _ = prepare(local_store, "mine", str(given), how=Ingest("imagefolder"))
    assert manifest.classes == ("caf\u00e9", "dog")
    assert manifest.splits["train"].class_counts == (6, 6)
    assert manifest.left_out == ()


def test_parquet_of_the_hub_given_for_the_catalogs_dataset_names_the_way(
    local_store: Store, tmp_path: Path
):
    given = write_folder(tmp_path / "given", hub_tables())
    command = "prepare my-cifar100 --layout huggingface --archive"
    with pytest.raises(ArchiveError, match=command):
        prepare(local_store, "cifar100", str(given))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match=r"none of the files of Fashion-MNIST \(train-images-"):
        prepare(local_store, "fashion-mnist", str(tmp_path / "empty"))
