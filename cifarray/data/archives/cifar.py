"""Read CIFAR-10 and CIFAR-100: a tar (or its folder) of pickled dictionaries."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.data.archives.arrays import SplitArrays
from cifarray.data.archives.members import read_members
from cifarray.data.archives.pickled_arrays import PickledArray, as_text
from cifarray.data.archives.pickles import read_pickle
from cifarray.data.catalog import DatasetEntry
from cifarray.errors import ArchiveError

OPCODES_PER_ROW = 20
"""A row's file name and labels take four to eight opcodes, however it was pickled."""
OPCODES_BESIDE_ROWS = 10_000
NAME_BYTES_PER_ROW = 512
NAMES_FILE_BYTES = 1 << 20


def read_cifar(entry: DatasetEntry, path: Path) -> dict[str, SplitArrays]:
    """Every split of a CIFAR archive, rows in its order. Raises: ArchiveError."""
    split_of = {name: split for split, names in entry.members.items() for name in names}
    limits = {name: _limit_bytes(entry, split) for name, split in split_of.items()}
    parts: dict[str, SplitArrays] = {}
    for name, content in read_members(path, limits):
        split = split_of[name]
        try:
            if split == "names":
                _check_names(entry, _dictionary(content, OPCODES_BESIDE_ROWS))
            else:
                parts[name] = _arrays(entry, split, content)
        except ArchiveError as error:
            raise ArchiveError(f"{path.name}, {name}: {error}") from error
    return {
        split: _joined({name: parts[name] for name in names})
        for split, names in entry.members.items()
        if split != "names"
    }


def _limit_bytes(entry: DatasetEntry, split: str) -> int:
    """The most that a file may have: Python 3's protocol 2 takes two bytes a pixel."""
    if split == "names":
        return NAMES_FILE_BYTES
    return entry.rows[split] * (2 * entry.image_bytes + NAME_BYTES_PER_ROW) + NAMES_FILE_BYTES


def _dictionary(content: bytes, max_opcodes: int) -> dict[str, Any]:
    value = read_pickle(content, max_opcodes=max_opcodes)
    if not isinstance(value, dict):
        raise ArchiveError(f"holds a {type(value).__name__}; a CIFAR file holds a dictionary")
    return value


def _field(batch: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(batch.get(key), kind):
        keys = ", ".join(repr(name[:40]) for name in list(batch)[:8])
        raise ArchiveError(f"holds no sound {key!r}; its fields are {keys or 'none'}")
    return batch[key]


def _arrays(entry: DatasetEntry, split: str, content: bytes) -> SplitArrays:
    batch = _dictionary(content, entry.rows[split] * OPCODES_PER_ROW + OPCODES_BESIDE_ROWS)
    pixels: NDArray[np.uint8] | None = _field(batch, "data", PickledArray).values
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != entry.image_bytes:
        shape = None if pixels is None else list(pixels.shape)
        raise ArchiveError(f"holds images of shape {shape}; [rows, {entry.image_bytes}] is needed")
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
        raise ArchiveError(f"holds {rows} images and {len(values)} {key}")
    limits = np.iinfo(np.int16)
    for row, value in enumerate(values):
        if type(value) is not int or not 0 <= value <= limits.max:
            shown = value if type(value) is int else type(value).__name__
            raise ArchiveError(f"row {row} of {key} is {shown}, which is no class")
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
            raise ArchiveError(f"{key} are no strings") from error
        if names != classes:
            differs = next((n for n in names if n not in classes), f"{len(names)} names")
            raise ArchiveError(
                f"{key} are not those of {entry.title} ({differs[:60]!r} differs); "
                "is it another dataset's archive?"
            )


def _joined(named: Mapping[str, SplitArrays]) -> SplitArrays:
    listed = tuple((PurePosixPath(name).name, part.rows) for name, part in named.items())
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
