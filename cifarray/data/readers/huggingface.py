"""Read Parquet shards in the layout of the Hub's image datasets: train-*.parquet, test-*.parquet.

https://huggingface.co/docs/datasets/image_dataset: a column of structs with the encoded image and
its path, one of whole numbers, and in the schema's metadata the names that the numbers stand for.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.base import (
    NOT_USED,
    VALIDATION_NAMES,
    ImageArchive,
    ListedImages,
    Reading,
    check_classes,
    refuse_losses,
)
from cifarray.data.readers.containers import LEAST_BUDGET_BYTES, MOST_FILE_BYTES, MOST_RATIO
from cifarray.data.readers.files import ArchiveFiles, FolderFiles
from cifarray.data.readers.huggingface_columns import (
    Columns,
    find_columns,
    is_empty,
    open_shard,
    read_labels,
)
from cifarray.errors import ArchiveError

SHARD = re.compile(r"(train|test|validation|valid|val|dev)(-[^/]*)?\.parquet")
PART_OF = re.compile(r".*-(\d{5})-of-(\d{5})(-[^/]*)?\.parquet")
ROWS_AT_ONCE = 64
NO_SUPERCLASS = -1

Shards = Sequence[tuple[str, Path]]
"""The name of each shard and its real path, which in the Hub's cache is behind a link."""


def is_wanted(name: str) -> bool:
    """Whether a file is a shard of some split."""
    return SHARD.fullmatch(PurePosixPath(name).name) is not None


def list_hugging_face(entry: DatasetEntry, files: ArchiveFiles, how: Reading) -> ImageArchive:
    """Rows in the order of the shards' names; classes as the schema's metadata orders them.

    Classes that have no row, as `filter` leaves them, are left out and the others renumbered.

    Raises: ArchiveError.
    """
    archive, left_out = files.path.name, how.left_out
    if not isinstance(files, FolderFiles):
        raise ArchiveError(
            f"{archive} is not a folder; unpack it, and give the folder with the Parquet shards"
        )
    shards = _shards(files, how.test_split)
    sources = {"train": "train", "test": _source(shards, how.test_split)}
    _count_others(files, shards, set(sources.values()), left_out)
    name, place = shards["train"][0]
    with open_shard(name, place) as parquet:
        columns = find_columns(name, parquet.schema_arrow)
    rows = {
        split: _Rows.read(shards[source], columns, source, left_out)
        for split, source in sources.items()
    }
    for column in sorted(set().union(*(of_split.others for of_split in rows.values()))):
        left_out.add("column", f"column left out: {column}")
    _refuse_unlabeled(archive, shards, sources, rows)
    kept = _classes_kept(columns.classes, sources, rows, left_out)
    classes = tuple(columns.classes[label] for label in kept)
    for of_split in rows.values():
        of_split.renumber(kept, len(columns.classes))
    labels = {sources[split]: of_split.labels for split, of_split in rows.items()}
    refuse_losses(archive, left_out, classes, labels)
    check_classes(archive, classes)
    coarse_classes, fine_to_coarse = _superclasses(columns, len(classes), rows.values(), left_out)
    return ImageArchive(
        classes,
        {
            split: of_split.listed(shards[sources[split]], columns.image)
            for split, of_split in rows.items()
        },
        sources=sources,
        coarse_classes=coarse_classes,
        fine_to_coarse=fine_to_coarse,
    )


class _Rows:
    """The labels of a split's rows, and which rows of each shard are kept."""

    def __init__(self) -> None:
        self.labels: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.coarse: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        """NO_SUPERCLASS if the row has none."""
        self.masks: list[NDArray[np.bool_]] = []
        self.others: set[str] = set()
        """Columns of the shards that are not read."""
        self.rows = 0
        """In the shards, whether they are kept or not."""

    @classmethod
    def read(
        cls, shards: Shards, columns: Columns, split: str, left_out: LeftOutCounter
    ) -> "_Rows":
        """The rows of these shards that have a class; the others are counted."""
        made = cls()
        labels, coarse = [], []
        for name, place in shards:
            with open_shard(name, place) as parquet:
                here = find_columns(name, parquet.schema_arrow)
                made.others.update(
                    column for column in here.others if not is_empty(parquet.metadata, column)
                )
                if replace(here, others=columns.others) != columns:
                    raise ArchiveError(
                        f"{name} differs from the first shard of train in its columns or class "
                        "names; give shards of one dataset"
                    )
                refuse_more_rows_than_bytes(name, place, parquet.metadata.num_rows)
                found = read_labels(name, parquet, columns.label)
                if columns.coarse:
                    superclass = read_labels(name, parquet, columns.coarse).values
                else:
                    superclass = np.full(len(found.values), NO_SUPERCLASS)
            mask = (found.values >= 0) & (found.values < len(columns.classes))
            for reason, rows in found.reasons(~mask).items():
                example = f"row {rows[0]} of {name}"
                left_out.add("image", reason, split=split, count=len(rows), example=example)
            made.rows += len(mask)
            made.masks.append(mask)
            labels.append(found.values[mask])
            coarse.append(superclass[mask])
        made.labels, made.coarse = np.concatenate(labels), np.concatenate(coarse)
        return made

    def leave_out(self, gone: NDArray[np.bool_]) -> None:
        """Take these of the kept rows away."""
        first = 0
        for mask in self.masks:
            places = np.flatnonzero(mask)
            mask[places[gone[first : first + len(places)]]] = False
            first += len(places)
        self.labels, self.coarse = self.labels[~gone], self.coarse[~gone]

    def renumber(self, kept: Sequence[int], classes: int) -> None:
        """Number the classes that are kept from 0 on; only their rows are left."""
        number = np.full(classes, -1, dtype=np.int64)
        number[list(kept)] = np.arange(len(kept))
        self.labels = number[self.labels]

    def listed(self, shards: Shards, image: str) -> ListedImages:
        """The images of the rows that are kept."""
        names = [
            f"row {row} of {name}"
            for (name, _), mask in zip(shards, self.masks, strict=True)
            for row in np.flatnonzero(mask).tolist()
        ]
        contents = partial(_contents, shards, self.masks, image)
        return ListedImages(self.labels, names, contents)


def _source(shards: Mapping[str, Shards], test_split: str) -> str:
    """The name under which the shards have the split that becomes test."""
    names = (test_split, *(VALIDATION_NAMES if test_split in VALIDATION_NAMES else ()))
    return next((name for name in names if name in shards), test_split)


def _shards(files: FolderFiles, test_split: str) -> dict[str, list[tuple[str, Path]]]:
    """The shards of each split, all in one folder."""
    folders = sorted({PurePosixPath(name).parent.as_posix() for name in files.names})
    if len(folders) > 1:
        raise ArchiveError(
            f"{files.path.name} contains Parquet shards in {folders[0]!r} and in {folders[1]!r}; "
            "give one of these folders"
        )
    shards: dict[str, list[tuple[str, Path]]] = {}
    for name in files.names:
        found = SHARD.fullmatch(PurePosixPath(name).name)
        assert found is not None  # or it would not be wanted
        shards.setdefault(found[1], []).append((PurePosixPath(name).name, files.place(name)))
    for split in ("train", _source(shards, test_split)):
        if split not in shards:
            others = [name for name in shards if name not in ("train", split)]
            hint = f"; to test on {others[0]}, add --test-split {others[0]}" if others else ""
            raise ArchiveError(
                f"{files.path.name} contains no {split}-*.parquet, at its top or in data/; both "
                f"train and test are required{hint if split != 'train' else ''}"
            )
    return shards


def _count_others(
    files: FolderFiles, shards: Mapping[str, Shards], used: set[str], left_out: LeftOutCounter
) -> None:
    """Tell of splits that are not used, of shards that are not there, and of other files."""
    for name in files.others:
        path = PurePosixPath(name)
        if path.suffix.lower() == ".parquet":
            split = path.stem.partition("-")[0]
            _count_rows(path.name, files.place(name), split, left_out)
        else:
            suffix = path.suffix.lower() or "no suffix"
            left_out.add("file", f"not a shard of a split: {suffix}", example=name)
    for split, of_split in shards.items():
        if split in used:
            names = [name for name, _ in of_split]
            left_out.add(
                "absent",
                "shards missing from the numbering of the others",
                split=split,
                count=_missing(names),
                example=names[0],
            )
            continue
        for name, place in of_split:
            _count_rows(name, place, split, left_out)


def _count_rows(name: str, place: Path, split: str, left_out: LeftOutCounter) -> None:
    """Tell of the rows of a shard that is not read, or of the file where it is no Parquet."""
    try:
        with open_shard(name, place) as parquet:
            rows = parquet.metadata.num_rows
            left_out.add("split", NOT_USED, split=split, count=rows, example=name)
    except ArchiveError:
        left_out.add("file", NOT_USED, split=split, example=name)


def _missing(names: Sequence[str]) -> int:
    """How many shards there are that the others' names count, as after a cut download."""
    found = [(int(part[1]), int(part[2])) for name in names if (part := PART_OF.fullmatch(name))]
    parts = max((of for _, of in found), default=0)
    return max(0, parts - len({number for number, of in found if of == parts}))


def _refuse_unlabeled(
    archive: str,
    shards: Mapping[str, Shards],
    sources: Mapping[str, str],
    rows: Mapping[str, _Rows],
) -> None:
    """Refuse a split none of whose rows has a class, as the tests of competitions."""
    for split, of_split in rows.items():
        if len(of_split.labels):
            continue
        others = [name for name in shards if name not in sources.values()]
        hint = "give shards with labeled rows"
        if split == "test" and others:
            hint = f"to test on its split {others[0]}, add --test-split {others[0]}"
        if not of_split.rows:
            raise ArchiveError(
                f"{archive}: split {sources[split]} has no rows; give shards with rows"
            )
        raise ArchiveError(
            f"{archive}: the {of_split.rows:,} rows of split {sources[split]} have no class "
            f"label (usually -1); {hint}"
        )


def _classes_kept(
    classes: Sequence[str],
    sources: Mapping[str, str],
    rows: Mapping[str, _Rows],
    left_out: LeftOutCounter,
) -> list[int]:
    """The labels that have rows in train and in test; rows of the others are left out."""
    has = {
        split: np.bincount(of_split.labels, minlength=len(classes)) > 0
        for split, of_split in rows.items()
    }
    for label in np.flatnonzero(~has["train"] & ~has["test"]).tolist():
        left_out.add(
            "class", "class without a row", class_name=classes[label], example=classes[label]
        )
    kept = has["train"] & has["test"]
    for split, of_split in rows.items():
        gone = ~kept[of_split.labels]
        other = sources["test" if split == "train" else "train"]
        for label, count in zip(*np.unique(of_split.labels[gone], return_counts=True), strict=True):
            left_out.add(
                "image",
                f"its class has no row in {other}",
                split=sources[split],
                class_name=classes[label],
                count=int(count),
            )
        of_split.leave_out(gone)
    return np.flatnonzero(kept).tolist()


def _superclasses(
    columns: Columns, classes: int, rows: Any, left_out: LeftOutCounter
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of the superclasses that have rows, and the superclass of each class.

    None if the column does not give each class one superclass; then it is left out, and counted.
    """
    if columns.coarse is None:
        return (), ()
    rows = list(rows)
    labels = np.concatenate([of_split.labels for of_split in rows])
    coarse = np.concatenate([of_split.coarse for of_split in rows])
    of_class = np.full(classes, NO_SUPERCLASS, dtype=np.int64)
    of_class[labels] = coarse
    sound = (coarse >= 0) & (coarse < len(columns.coarse_classes))
    if not sound.all() or not np.array_equal(of_class[labels], coarse):
        left_out.add("column", f"column left out: {columns.coarse} (not one superclass per class)")
        return (), ()
    present = np.unique(of_class)
    names = tuple(columns.coarse_classes[label] for label in present.tolist())
    return names, tuple(np.searchsorted(present, of_class).tolist())


def _contents(shards: Shards, masks: Sequence[NDArray[np.bool_]], image: str) -> Iterator[bytes]:
    for (name, place), mask in zip(shards, masks, strict=True):
        with open_shard(name, place) as parquet:
            row, room = 0, max(LEAST_BUDGET_BYTES, MOST_RATIO * place.stat().st_size)
            for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=[f"{image}.bytes"]):
                for content in batch.column(0).field("bytes"):
                    image_bytes = _checked_content(name, row, content.as_py())
                    room -= len(image_bytes)
                    if room < 0:
                        raise ArchiveError(
                            f"{name} unpacks to more than {MOST_RATIO} times its own size; it is "
                            "refused: write it again from the images"
                        )
                    if mask[row]:
                        yield image_bytes
                    row += 1


def refuse_more_rows_than_bytes(name: str, place: Path, rows: int) -> None:
    """Equal labels of any number pack to nothing, and are unpacked all at once."""
    if rows > place.stat().st_size:
        raise ArchiveError(
            f"{name} declares {rows} rows, more than its size allows; it is refused: download it "
            "again"
        )


def _checked_content(name: str, row: int, content: Any) -> bytes:
    if not isinstance(content, bytes):
        return b""  # which decodes as little as any other bytes that are no image
    if len(content) > MOST_FILE_BYTES:
        raise ArchiveError(
            f"row {row} of {name} has an image of {len(content)} bytes; at most "
            f"{MOST_FILE_BYTES} are allowed: make it smaller"
        )
    return content
