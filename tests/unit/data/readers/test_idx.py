"""The idx reader: a header must declare exactly the bytes that follow."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cifarray.data.catalog import FASHION_MNIST
from cifarray.data.readers.base import check_splits
from cifarray.data.readers.idx import parse_idx, read_idx
from cifarray.errors import ArchiveError
from tests.archives import idx, write_fashion_mnist


def test_a_folder_of_idx_files_is_read(tmp_path: Path) -> None:
    splits = read_idx(FASHION_MNIST, write_fashion_mnist(tmp_path / "idx", 10, 4))
    check_splits(FASHION_MNIST, splits)
    assert splits["train"].images.shape == (100, 28, 28, 1)
    assert np.bincount(splits["test"].labels).tolist() == [4] * 10


LABELS = np.zeros(100, dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS + 10)), "labels hold 10"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS[:99])), "100 images but 99 lab"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS) + b"x"), "and 101 follow"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS)[:-1]), "and 99 follow"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(b"\0\0\x08\x03"), "begins with 00000803"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(b"\0\0\x0d\x01" + bytes(404)), "0000080"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(b""), "begins with nothing"),
        ("train-labels-idx1-ubyte.gz", b"", "begins with nothing"),
        ("train-labels-idx1-ubyte.gz", b"no gzip", "truncated or not a gzip file"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS))[:-6], "truncated or not a gzip"),
        ("t10k-images-idx3-ubyte.gz", gzip.compress(bytes(10**7), 1), "unpacks to more"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx(np.zeros((100, 32, 32), dtype=np.uint8))),
            r"images of shape \[32, 32, 1\], but Fashion-MNIST has \[28, 28, 1\]",
        ),
    ],
)
def test_a_broken_idx_file_is_refused(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    folder = write_fashion_mnist(tmp_path / "idx", 10, 4)
    (folder / name).write_bytes(content)
    with pytest.raises(ArchiveError, match=reason):
        check_splits(FASHION_MNIST, read_idx(FASHION_MNIST, folder))


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    folder = write_fashion_mnist(tmp_path / "idx", 2, 1)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ArchiveError, match="lacks t10k-labels-idx1-ubyte"):
        read_idx(FASHION_MNIST, folder)


def test_an_idx_header_cannot_declare_more_than_there_is() -> None:
    with pytest.raises(ArchiveError, match="and 4 follow"):
        parse_idx("a", b"\0\0\x08\x03" + b"\xff" * 12 + bytes(4), 3)
