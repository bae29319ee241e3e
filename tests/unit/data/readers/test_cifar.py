"""CIFAR archives and digits: sound ones are read, broken and malicious ones refused."""

import dataclasses
import gzip
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cifarray.data.catalog import CIFAR10, CIFAR100, DIGITS
from cifarray.data.readers.base import check_splits
from cifarray.data.readers.cifar import read_cifar
from cifarray.data.readers.digits import read_digits
from cifarray.errors import ArchiveError
from tests.archives import (
    Style,
    dump,
    write_cifar10,
    write_cifar100,
    write_tar,
)

SMALL = dataclasses.replace(CIFAR100, rows={"train": 200, "test": 100})


def batch(rows: int = 2, **other: object) -> bytes:
    """A sound CIFAR-100 file of `rows` apples, with other values in some fields."""
    fields = {
        "fine_labels": [0] * rows,
        "coarse_labels": [CIFAR100.fine_to_coarse[0]] * rows,
        "data": np.zeros((rows, 3072), dtype=np.uint8),
    }
    return dump({**fields, **other})


@pytest.mark.parametrize("style", ["python2", "numpy2"])
def test_a_cifar100_archive_is_read(style: Style, tmp_path: Path) -> None:
    splits = read_cifar(CIFAR100, write_cifar100(tmp_path / "a.tar.gz", 2, 1, style=style))
    check_splits(CIFAR100, splits)
    train = splits["train"]
    assert train.images.shape == (200, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [2] * 100
    expected = np.array(CIFAR100.fine_to_coarse)[train.labels]
    assert np.array_equal(train.coarse_labels, expected)
    red = train.images[train.labels == 10]
    assert red[..., 0].max() > 2 * red[..., 1].max()


@pytest.mark.parametrize("style", ["python2", "numpy2"])
def test_a_cifar10_archive_is_read_in_the_order_of_its_batches(
    style: Style, tmp_path: Path
) -> None:
    path = write_cifar10(tmp_path / "a.tar.gz", 10, 4, style=style)
    splits = read_cifar(CIFAR10, path)
    check_splits(CIFAR10, splits)
    assert splits["train"].images.shape == (100, 32, 32, 3)
    with tarfile.open(path) as tar:
        files = [tar.extractfile(f"cifar-10-batches-py/data_batch_{n}") for n in range(1, 6)]
        labels = [pickle.loads(f.read(), encoding="latin1")["labels"] for f in files if f]
    assert splits["train"].labels.tolist() == [label for part in labels for label in part]


def test_pixels_are_those_of_the_pickle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    path = write_cifar100(tmp_path / "a.tar.gz", 1, 1, train=batch(data=pixels))
    images = read_cifar(CIFAR100, path)["train"].images
    assert np.array_equal(images, pixels.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("top", [".", "cifar-100-python"])
def test_an_unpacked_archive_is_read_from_its_folder(top: str, tmp_path: Path) -> None:
    path = write_cifar100(tmp_path / "a.tar.gz", 2, 1)
    shutil.unpack_archive(path, tmp_path / "unpacked")
    packed = read_cifar(CIFAR100, path)
    unpacked = read_cifar(CIFAR100, tmp_path / "unpacked" / top)
    assert np.array_equal(packed["test"].images, unpacked["test"].images)


def test_a_tar_without_compression_is_read(tmp_path: Path) -> None:
    packed = write_cifar100(tmp_path / "a.tar.gz", 1, 1)
    (tmp_path / "a.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    assert read_cifar(CIFAR100, tmp_path / "a.tar")["train"].rows == 100


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"fine_labels": [0, 100]}, "train labels hold 100; 0 to 99 are allowed"),
        ({"fine_labels": [0, -1]}, "row 1 of fine_labels is -1"),
        ({"fine_labels": [0, 1 << 20]}, "row 1 of fine_labels is 1048576"),
        ({"fine_labels": [0, "apple"]}, "row 1 of fine_labels is memoryview"),
        ({"fine_labels": [0]}, "2 images but 1 fine_labels"),
        ({"fine_labels": None}, "has no valid 'fine_labels'"),
        ({"coarse_labels": [4, 20]}, "coarse labels hold 20; 0 to 19 are allowed"),
        (
            {"coarse_labels": [4, 0]},
            "row 1 says that apple is of aquatic_mammals; in the published dataset it is",
        ),
        ({"data": np.zeros((2, 3071), dtype=np.uint8)}, r"\[2, 3071\]; \[rows, 3072\] is required"),
        ({"data": np.zeros(6144, dtype=np.uint8)}, r"shape \[6144\]"),
        ({"data": [0, 1]}, "has no valid 'data'"),
    ],
)
def test_a_cifar_file_with_a_wrong_field_is_refused(
    fields: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = write_cifar100(tmp_path / "a.tar.gz", 1, 1, train=batch(**fields))
    with pytest.raises(ArchiveError, match=reason):
        check_splits(CIFAR100, read_cifar(CIFAR100, path))


def test_other_class_names_are_refused(tmp_path: Path) -> None:
    names = {
        "fine_label_names": ["pear", *CIFAR100.classes[1:]],
        "coarse_label_names": list(CIFAR100.coarse_classes),
    }
    path = write_cifar100(tmp_path / "a.tar.gz", 1, 1, meta=dump(names))
    with pytest.raises(ArchiveError, match="are not those of CIFAR-100"):
        read_cifar(CIFAR100, path)


def test_more_rows_than_published_are_refused(tmp_path: Path) -> None:
    path = write_cifar100(tmp_path / "a.tar.gz", 3, 1)
    with pytest.raises(ArchiveError, match="has 300 rows; 1 to 200"):
        check_splits(SMALL, read_cifar(SMALL, path))


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    path = write_cifar100(tmp_path / "a.tar.gz", 1, 1, test=batch(rows=0))
    with pytest.raises(ArchiveError, match="has 0 rows"):
        check_splits(CIFAR100, read_cifar(CIFAR100, path))


def test_another_datasets_archive_is_refused(tmp_path: Path) -> None:
    path = write_cifar10(tmp_path / "a.tar.gz")
    with pytest.raises(ArchiveError, match="lacks cifar-100-python/train and 2 more"):
        read_cifar(CIFAR100, path)


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("/etc/cron.d/x", tarfile.REGTYPE), "a path outside the archive"),
        (member("../x", tarfile.REGTYPE), "a path outside the archive"),
        (member("cifar-100-python/../../x", tarfile.REGTYPE), "a path outside the archive"),
        (member("cifar-100-python\\..\\x", tarfile.REGTYPE), "a path outside the archive"),
        (member("cifar-100-python/train", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (member("cifar-100-python/train", tarfile.LNKTYPE, "meta"), "is a link"),
        (member("null", tarfile.CHRTYPE), "is a link, a device"),
        (member("disk", tarfile.BLKTYPE), "is a link, a device"),
        (member("pipe", tarfile.FIFOTYPE), "is a link, a device"),
        (member("cifar-100-python/train", tarfile.GNUTYPE_SPARSE), "sparse|truncated"),
        (member("cifar-100-python/train", tarfile.REGTYPE), "truncated|twice"),
    ],
)
def test_an_unsafe_tar_member_is_refused(bad: tarfile.TarInfo, reason: str, tmp_path: Path) -> None:
    files = {f"cifar-100-python/{name}": batch() for name in ("train", "test")}
    path = write_tar(tmp_path / "a.tar.gz", files, [bad])
    with pytest.raises(ArchiveError, match=reason):
        read_cifar(CIFAR100, path)


def test_nothing_of_an_archive_is_written_to_disk(tmp_path: Path) -> None:
    path = write_cifar100(tmp_path / "a.tar.gz", 1, 1)
    read_cifar(CIFAR100, path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_twice_in_a_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            info = member("cifar-100-python/train", tarfile.REGTYPE)
            info.size = len(batch())
            tar.addfile(info, io.BytesIO(batch()))
    with pytest.raises(ArchiveError, match="contains 'cifar-100-python/train' twice"):
        read_cifar(CIFAR100, path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cifar-100-python/train", "at most 2379776 are allowed"),
        ("cifar-100-python/readme", "unpacks to more than the published"),
    ],
)
def test_a_member_that_unpacks_to_more_than_its_kind_may_have_is_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {name: bytes(12 << 20)})
    with pytest.raises(ArchiveError, match=reason):
        read_cifar(SMALL, path)


def test_a_header_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    header = member("x", tarfile.XHDTYPE)
    header.size = 1 << 32
    bomb = header.tobuf(tarfile.USTAR_FORMAT) + bytes(12 << 20)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bomb, compresslevel=1))
    with pytest.raises(ArchiveError, match="unpacks to more"):
        read_cifar(SMALL, tmp_path / "a.tar.gz")


def test_headers_without_a_file_between_them_are_refused(tmp_path: Path) -> None:
    record = b"12 comment=\n"
    header = member("x", tarfile.XHDTYPE)
    header.size = len(record)
    chain = (header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 3000
    (tmp_path / "a.tar").write_bytes(chain)
    with pytest.raises(ArchiveError, match="truncated, or is neither a zip nor a tar"):
        read_cifar(SMALL, tmp_path / "a.tar")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_archive_is_refused(kept: float, cifar100_archive: Path, tmp_path: Path) -> None:
    data = cifar100_archive.read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ArchiveError, match="truncated"):
        read_cifar(CIFAR100, tmp_path / "a.tar.gz")


def test_a_flipped_byte_is_refused_or_changes_nothing(
    cifar100_archive: Path, tmp_path: Path
) -> None:
    sound = read_cifar(CIFAR100, cifar100_archive)
    data = cifar100_archive.read_bytes()
    refused = 0
    for place in range(20, len(data), len(data) // 40):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        (tmp_path / "a.tar.gz").write_bytes(flipped)
        try:
            splits = read_cifar(CIFAR100, tmp_path / "a.tar.gz")
        except ArchiveError:
            refused += 1
        else:  # a bit that gzip does not use
            assert np.array_equal(splits["train"].images, sound["train"].images)
            assert np.array_equal(splits["train"].labels, sound["train"].labels)
    assert refused > 35


def test_text_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_text("<html>moved</html>")
    with pytest.raises(ArchiveError, match="is a web page, not an archive; download the file"):
        read_cifar(CIFAR100, tmp_path / "a.tar.gz")
    (tmp_path / "a.tar.gz").write_text("moved")
    with pytest.raises(ArchiveError, match="truncated, or is neither a zip nor a tar"):
        read_cifar(CIFAR100, tmp_path / "a.tar.gz")


def test_digits_are_scikit_learns_with_its_own_stratified_split() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    splits = read_digits(DIGITS)
    check_splits(DIGITS, splits)
    x, y = load_digits(return_X_y=True)
    _, test_x, _, test_y = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    ours = splits["test"]
    assert ours.images.shape == (360, 8, 8, 1)
    assert np.bincount(ours.labels).tolist() == np.bincount(test_y).tolist()
    theirs = np.round(test_x * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, ours.images)) == sorted(map(bytes, theirs))
    assert splits["train"].images.max() == 255
