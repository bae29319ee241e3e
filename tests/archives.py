"""Archives of the CIFAR and idx layouts, made of scikit-learn's digits scaled up.

The digits are real handwriting, so that a small network learns from these archives. Of CIFAR's 100
fine classes, class c shows digit c % 10 in tint c // 10.
"""

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cifarray.data.catalog import DATASETS, DatasetEntry

Style = Literal["python2", "numpy2"]
Rows = tuple[NDArray[np.uint8], list[int]]
"""Images [rows, height, width, channels], and their labels."""

TINTS = np.array(
    [
        (1.0, 1.0, 1.0),
        (1.0, 0.2, 0.2),
        (0.2, 1.0, 0.2),
        (0.3, 0.4, 1.0),
        (1.0, 1.0, 0.1),
        (1.0, 0.1, 1.0),
        (0.1, 1.0, 1.0),
        (1.0, 0.6, 0.2),
        (0.5, 0.2, 0.8),
        (0.5, 0.5, 0.5),
    ]
)


def write_cifar100(
    path: Path,
    rows_per_class: int = 4,
    test_rows_per_class: int = 1,
    *,
    style: Style = "python2",
    **replaced: bytes,
) -> Path:
    """A tar.gz of CIFAR-100's layout; `replaced` puts other bytes into train, test or meta."""
    entry = DATASETS["cifar100"]
    files = {}
    for split, rows in _splits(entry, rows_per_class, test_rows_per_class).items():
        images, labels = rows
        batch = {
            "filenames": [f"digit_s_{row:06d}.png" for row in range(len(labels))],
            "batch_label": f"{split}ing batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [entry.fine_to_coarse[label] for label in labels],
            "data": _planes(images),
        }
        files[split] = dump(batch, style)
    names = {
        "fine_label_names": list(entry.classes),
        "coarse_label_names": list(entry.coarse_classes),
    }
    files |= {"meta": dump(names, style), **replaced}
    return write_tar(path, {f"cifar-100-python/{name}": data for name, data in files.items()})


def write_cifar10(
    path: Path,
    rows_per_class: int = 10,
    test_rows_per_class: int = 4,
    *,
    style: Style = "python2",
    **replaced: bytes,
) -> Path:
    """A tar.gz of CIFAR-10's layout: train in five batches; `replaced` as in `write_cifar100`."""
    entry = DATASETS["cifar10"]
    splits = _splits(entry, rows_per_class, test_rows_per_class)
    images, labels = splits["train"]
    cuts = np.array_split(np.arange(len(labels)), 5)
    parts = {
        f"data_batch_{number}": (images[cut], [labels[row] for row in cut])
        for number, cut in enumerate(cuts, start=1)
    }
    files = {
        name: dump({"batch_label": name, "labels": rows[1], "data": _planes(rows[0])}, style)
        for name, rows in {**parts, "test_batch": splits["test"]}.items()
    }
    meta = {"num_cases_per_batch": 10000, "label_names": list(entry.classes), "num_vis": 3072}
    files |= {"batches.meta": dump(meta, style), **replaced}
    return write_tar(path, {f"cifar-10-batches-py/{name}": data for name, data in files.items()})


def write_fashion_mnist(
    folder: Path, rows_per_class: int = 10, test_rows_per_class: int = 4
) -> Path:
    """A folder with the four gzipped idx files of the MNIST family."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = _splits(DATASETS["fashion-mnist"], rows_per_class, test_rows_per_class)
    for prefix, (images, labels) in (("train", splits["train"]), ("t10k", splits["test"])):
        for name, array in (
            (f"{prefix}-images-idx3-ubyte.gz", images[..., 0]),
            (f"{prefix}-labels-idx1-ubyte.gz", np.array(labels, dtype=np.uint8)),
        ):
            (folder / name).write_bytes(gzip.compress(idx(array), mtime=0))
    return folder


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an uncompressed idx file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_tar(
    path: Path, files: Mapping[str, bytes], extra: Iterable[tarfile.TarInfo] = ()
) -> Path:
    """A tar.gz of these files, after some bare members; equal files give equal bytes."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for member in extra:
            tar.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def dump(value: dict[str, Any], style: Style = "python2", protocol: int = 4) -> bytes:
    """A dictionary of numbers, strings, lists and uint8 arrays as a pickle of that time."""
    if style == "numpy2":
        return pickle.dumps(value, protocol=protocol)
    return Python2Pickle().dump(value)


class Python2Pickle:
    """Writes protocol 2 byte for byte as Python 2's cPickle did under NumPy 1."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._memo = 1

    def dump(self, value: Any) -> bytes:
        """The whole pickle."""
        self._out.write(b"\x80\x02")
        self._value(value)
        self._out.write(pickle.STOP)
        return self._out.getvalue()

    def _remember(self) -> None:
        short = self._memo < 256
        self._out.write(pickle.BINPUT if short else pickle.LONG_BINPUT)
        self._out.write(struct.pack("<B" if short else "<I", self._memo))
        self._memo += 1

    def _value(self, value: Any) -> None:
        if isinstance(value, bool) or value is None:
            self._out.write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, int):
            self._int(value)
        elif isinstance(value, str | bytes):
            self._string(value.encode("latin-1") if isinstance(value, str) else value)
        elif isinstance(value, np.ndarray):
            self._array(value)
        else:
            self._container(value)

    def _int(self, value: int) -> None:
        kinds = (
            (0, 1 << 8, b"K", "<B"),
            (0, 1 << 16, b"M", "<H"),
            (-(1 << 31), 1 << 31, b"J", "<i"),
        )
        code, layout = next(kind[2:] for kind in kinds if kind[0] <= value < kind[1])
        self._out.write(code + struct.pack(layout, value))

    def _string(self, data: bytes, remember: bool = True) -> None:
        short = len(data) < 256
        self._out.write(b"U" if short else b"T")
        self._out.write(struct.pack("<B" if short else "<i", len(data)) + data)
        if remember:  # cPickle leaves out what nothing else refers to
            self._remember()

    def _container(self, value: dict[str, Any] | list[Any]) -> None:
        pairs = isinstance(value, dict)
        self._out.write(b"}" if pairs else b"]")
        self._remember()
        items: list[Any] = [part for item in value.items() for part in item] if pairs else value
        for first in range(0, len(items), 1000):
            self._out.write(b"(")
            for item in items[first : first + 1000]:
                self._value(item)
            self._out.write(b"u" if pairs else b"e")

    def _array(self, array: NDArray[np.uint8]) -> None:
        self._global("numpy.core.multiarray", "_reconstruct")
        self._global("numpy", "ndarray")
        self._out.write(b"K\x00\x85")
        self._string(b"b", remember=False)
        self._out.write(b"\x87R")
        self._remember()
        self._out.write(b"(K\x01")
        for size in array.shape:
            self._int(size)
        self._out.write({1: pickle.TUPLE1, 2: pickle.TUPLE2, 3: pickle.TUPLE3}[array.ndim])
        self._global("numpy", "dtype")
        self._string(array.dtype.str[1:].encode(), remember=False)
        self._out.write(b"K\x00K\x01\x87R")
        self._remember()
        self._out.write(b"(K\x03")
        self._string(b"|", remember=False)
        self._out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
        self._string(array.tobytes(), remember=False)
        self._out.write(b"tb")

    def _global(self, module: str, name: str) -> None:
        self._out.write(f"c{module}\n{name}\n".encode())
        self._remember()


@cache
def _digits() -> tuple[NDArray[np.uint8], list[NDArray[np.int64]]]:
    """Every digit as 8x8 from 0 to 255, and the rows of each."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return images, [np.flatnonzero(bunch.target == digit) for digit in range(10)]


def _splits(entry: DatasetEntry, train_rows: int, test_rows: int) -> dict[str, Rows]:
    """Both splits, no handwriting in both; classes in a fixed random order, as published."""
    order = np.random.default_rng(0)
    return {
        "train": _rows(entry, slice(0, train_rows), order),
        "test": _rows(entry, slice(train_rows, train_rows + test_rows), order),
    }


def _rows(entry: DatasetEntry, chosen: slice, order: np.random.Generator) -> Rows:
    images, rows_of = _digits()
    labels: list[int] = []
    pictures = []
    for label in range(len(entry.classes)):
        for row in rows_of[label % 10][chosen]:
            labels.append(label)
            pictures.append(_scaled(images[row], entry.shape, TINTS[label // 10]))
    if len(labels) != len(entry.classes) * (chosen.stop - chosen.start):
        raise ValueError("scikit-learn has about 174 of each digit; ask for fewer rows per class")
    mixed = order.permutation(len(labels))
    return np.stack(pictures)[mixed], [labels[row] for row in mixed]


def _scaled(
    digit: NDArray[np.uint8], shape: tuple[int, int, int], tint: NDArray[np.float64]
) -> NDArray[np.uint8]:
    height, width, channels = shape
    scale = height // 8
    large = digit.repeat(scale, axis=0).repeat(scale, axis=1)
    rim = (height - 8 * scale) // 2
    framed = np.pad(large, ((rim, height - 8 * scale - rim), (rim, width - 8 * scale - rim)))
    return (framed[..., np.newaxis] * tint[:channels]).astype(np.uint8)


def _planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As CIFAR stores them: a row per image, its red plane, then green, then blue."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
