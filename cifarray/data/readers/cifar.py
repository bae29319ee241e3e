"""Read CIFAR-10 and CIFAR-100 as published: pickled dictionaries, or the version for C programs."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.base import SplitArrays
from cifarray.data.readers.cifar_pickle import PickledArray, as_text, read_pickle
from cifarray.data.readers.members import read_members, refuse_missing
from cifarray.errors import ArchiveError

OPCODES_PER_ROW = 20
"""A row's file name and labels take four to eight opcodes, however it was pickled."""
OPCODES_BESIDE_ROWS = 10_000
NAME_BYTES_PER_ROW = 512
NAMES_FILE_BYTES = 1 << 20


def read_cifar(
    entry: DatasetEntry, path: Path, left_out: LeftOutCounter | None = None
) -> dict[str, SplitArrays]:
    """Every split of a CIFAR archive, rows in its order. Raises: ArchiveError."""
    left_out = left_out or LeftOutCounter()
    forms = (entry.members, entry.binary_members)
    split_of = {name: split for form in forms for split, names in form.items() for name in names}
    limits = {name: _limit_bytes(entry, split) for name, split in split_of.items()}
    parts: dict[str, SplitArrays] = {}
    found: set[str] = set()
    most_bytes = sum(limits[name] for name in _files(entry.members))
    for name, content in read_members(path, limits, left_out, most_bytes):
        found.add(name)
        binary = name not in _files(entry.members)
        try:
            if split_of[name] != "names":
                read = _binary_arrays if binary else _arrays
                parts[name] = read(entry, split_of[name], content, left_out)
            elif binary:
                _check_listed_names(entry, name, content)
            else:
                _check_names(entry, _dictionary(content, OPCODES_BESIDE_ROWS))
        except ArchiveError as error:
            raise ArchiveError(f"{path.name}, {name}: {error}") from error
    form = max(forms, key=lambda form: _share(_files(form), found))
    wanted = _files(form)
    refuse_missing(path.name, wanted, found)
    for name in sorted(found):
        if name not in wanted:
            left_out.add("file", "the same rows in another form", example=name)
    return {
        split: _joined({name: parts[name] for name in names})
        for split, names in form.items()
        if split != "names"
    }


def _files(form: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [name for names in form.values() for name in names]


def _share(names: Sequence[str], found: Container[str]) -> float:
    """How much of a form is there; of two whole ones the first is taken."""
    return sum(name in found for name in names) / max(1, len(names))


def _limit_bytes(entry: DatasetEntry, split: str) -> int:
    """The most that a file may have: Python 3's protocol 2 takes two bytes a pixel."""
    if split == "names":
        return NAMES_FILE_BYTES
    return entry.rows[split] * (2 * entry.image_bytes + NAME_BYTES_PER_ROW) + NAMES_FILE_BYTES


def _dictionary(content: bytes, max_opcodes: int) -> dict[str, Any]:
    value = read_pickle(content, max_opcodes=max_opcodes)
    if not isinstance(value, dict):
        raise ArchiveError(f"contains a {type(value).__name__}; a CIFAR file contains a dictionary")
    return value


def _field(batch: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(batch.get(key), kind):
        keys = ", ".join(repr(name[:40]) for name in list(batch)[:8])
        raise ArchiveError(f"has no valid {key!r}; its fields are {keys or 'none'}")
    return batch[key]


def _binary_arrays(
    entry: DatasetEntry, split: str, content: bytes, left_out: LeftOutCounter
) -> SplitArrays:
    """Rows of one byte for each label, the coarse one first, and the image's three planes."""
    labels = 2 if entry.coarse_classes else 1
    row_bytes = labels + entry.image_bytes
    if not content or len(content) % row_bytes:
        raise ArchiveError(
            f"has {len(content)} bytes, which is not a whole number of rows of {row_bytes}; "
            "download it again"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, row_bytes)
    height, width, channels = entry.fixed_shape
    planes = rows[:, labels:].reshape(len(rows), channels, height, width)
    return SplitArrays(
        images=planes.transpose(0, 2, 3, 1),
        labels=rows[:, labels - 1].astype(np.int16),
        coarse_labels=rows[:, 0].astype(np.int16) if entry.coarse_classes else None,
    )


def _check_listed_names(entry: DatasetEntry, name: str, content: bytes) -> None:
    """Refuse a list of a name per line that is not the catalog's."""
    listed = tuple(filter(None, map(str.strip, content.decode("utf-8", "replace").splitlines())))
    known = entry.coarse_classes if "coarse" in PurePosixPath(name).name else entry.classes
    _refuse_other_names(entry, PurePosixPath(name).name, listed, known)


def _arrays(
    entry: DatasetEntry, split: str, content: bytes, left_out: LeftOutCounter
) -> SplitArrays:
    batch = _dictionary(content, entry.rows[split] * OPCODES_PER_ROW + OPCODES_BESIDE_ROWS)
    read = (
        ("data", "labels")
        if not entry.coarse_classes
        else (
            "data",
            "fine_labels",
            "coarse_labels",
        )
    )
    for key in batch:
        if key not in read:
            left_out.add("column", f"column left out: {key}", split=split)
    pixels: NDArray[np.uint8] | None = _field(batch, "data", PickledArray).values
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != entry.image_bytes:
        shape = None if pixels is None else list(pixels.shape)
        raise ArchiveError(f"has images of shape {shape}; [rows, {entry.image_bytes}] is required")
    height, width, channels = entry.fixed_shape
    planes = pixels.reshape(len(pixels), channels, height, width)
    return SplitArrays(
        images=planes.transpose(0, 2, 3, 1),
        labels=_labels(batch, "fine_labels" if entry.coarse_classes else "labels", len(pixels)),
        coarse_labels=(
            _labels(batch, "coarse_labels", len(pixels)) if entry.coarse_classes else None
        ),
    )


def _labels(batch: dict[str, Any], key: str, rows: int) -> NDArray[np.int16]:
    values = _field(batch, key, list)
    if len(values) != rows:
        raise ArchiveError(f"has {rows} images but {len(values)} {key}")
    limits = np.iinfo(np.int16)
    for row, value in enumerate(values):
        if type(value) is not int or not 0 <= value <= limits.max:
            shown = value if type(value) is int else type(value).__name__
            raise ArchiveError(f"row {row} of {key} is {shown}, which is not a class")
    return np.array(values, dtype=np.int16)


def _check_names(entry: DatasetEntry, meta: dict[str, Any]) -> None:
    wanted = {"fine_label_names": entry.classes, "coarse_label_names": entry.coarse_classes}
    if not entry.coarse_classes:
        wanted = {"label_names": entry.classes}
    for key, classes in wanted.items():
        values = _field(meta, key, list)
        try:
            names = tuple(as_text(value) for value in values)
        except TypeError as error:
            raise ArchiveError(f"{key} are not strings") from error
        _refuse_other_names(entry, key, names, classes)


def _refuse_other_names(
    entry: DatasetEntry, where: str, names: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    if names != classes:
        differs = next((n for n in names if n not in classes), f"{len(names)} names")
        raise ArchiveError(
            f"{where} are not those of {entry.title} ({differs[:60]!r} differs); "
            "is it another dataset's archive?"
        )


def _joined(named: Mapping[str, SplitArrays]) -> SplitArrays:
    listed = tuple(  # a job names a part alike in whichever form it comes
        (PurePosixPath(name).name.removesuffix(".bin"), part.rows) for name, part in named.items()
    )
    parts = list(named.values())
    if len(parts) == 1:
        return replace(parts[0], parts=listed)
    coarse = [part.coarse_labels for part in parts if part.coarse_labels is not None]
    return SplitArrays(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        coarse_labels=np.concatenate(coarse) if coarse else None,
        parts=listed,
    )
