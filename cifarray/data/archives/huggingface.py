"""Read Parquet shards in the layout of the Hub's image datasets: train-*.parquet, test-*.parquet.

https://huggingface.co/docs/datasets/image_dataset: a column of structs with the encoded image and
its path, one of whole numbers, and in the schema's metadata the names that the numbers stand for.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifarray.data.archives.files import MOST_FILE_BYTES, MOST_RATIO, ArchiveFiles
from cifarray.data.archives.images import ImageArchive, ListedImages, check_classes
from cifarray.data.catalog import DatasetEntry
from cifarray.errors import ArchiveError
from cifarray.spec.bounds import parse_json

SHARD = re.compile(r"(train|test|validation|valid|val|dev)(-[^/]*)?\.parquet")
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
PART_OF = re.compile(r".*-(\d{5})-of-(\d{5})(-[^/]*)?\.parquet")
ROWS_AT_ONCE = 64
LEAST_BUDGET_BYTES = 64 << 20


def is_wanted(name: str) -> bool:
    """Whether a file is a shard of some split."""
    return SHARD.fullmatch(PurePosixPath(name).name) is not None


def list_hugging_face(entry: DatasetEntry, files: ArchiveFiles, crop: bool) -> ImageArchive:
    """Rows in the order of the shards' names; classes as the schema's metadata orders them.

    Raises: ArchiveError.
    """
    if not files.path.is_dir():
        raise ArchiveError(f"{files.path.name} is no folder; give that of the Parquet shards")
    shards = _shards(files)
    first = files.path / shards["train"][0]
    with _opened(first) as parquet:
        image, label, classes = _columns(first, parquet.schema_arrow)
    check_classes(files.path.name, classes)
    splits = {
        split: _listed([files.path / name for name in shards[split]], image, label, classes)
        for split in ("train", "test")
    }
    for split, listed in splits.items():
        _refuse_empty_classes(files.path.name, split, listed.labels, classes)
    unused = sorted(set(shards) - set(splits))
    remarks = tuple(
        f"{len(shards[split])} files of split {split} are left out: validation is cut from train"
        for split in unused
    )
    lacking = (_lacking(split, shards[split]) for split in splits)
    return ImageArchive(classes, splits, remarks=(*filter(None, lacking), *remarks))


def _shards(files: ArchiveFiles) -> dict[str, list[str]]:
    """The shards of each split, all in one folder."""
    folders = sorted({PurePosixPath(name).parent.as_posix() for name in files.names})
    if len(folders) > 1:
        raise ArchiveError(
            f"{files.path.name} holds Parquet shards in {folders[0]!r} and in {folders[1]!r}; give "
            "the folder of one"
        )
    shards: dict[str, list[str]] = {}
    for name in files.names:
        found = SHARD.fullmatch(PurePosixPath(name).name)
        assert found is not None  # or it would not be wanted
        shards.setdefault(found[1], []).append(name)
    for split in ("train", "test"):
        if split not in shards:
            other = next((name for name in shards if name not in ("train", "test")), None)
            hint = f"; to test on {other}, call its files test-*" * bool(other and split == "test")
            raise ArchiveError(
                f"{files.path.name} holds no {split}-*.parquet, at its top or in data/; both train "
                f"and test are needed{hint}"
            )
    return shards


def _lacking(split: str, names: Sequence[str]) -> str:
    """What to say where the shards' names tell that there are more, as after a cut download."""
    found = [(int(part[1]), int(part[2])) for name in names if (part := PART_OF.fullmatch(name))]
    parts = max((of for _, of in found), default=0)
    there = len({number for number, of in found if of == parts})
    return f"{split} has {there} of its {parts} shards; the others are not there" * (there < parts)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, thrift_string_size_limit=MOST_FILE_BYTES) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # of a column's name
        reason = " ".join(str(error).split())[:200]
        raise ArchiveError(
            f"{path.name} is no sound Parquet file ({reason}); fetch it again"
        ) from (error)


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and labels, and the labels' names."""
    for name in (*IMAGE_COLUMNS, *LABEL_COLUMNS):
        if schema.names.count(name) > 1:
            raise ArchiveError(f"{path.name} has two columns called {name}; take one away")
    struct = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    kind: Any = schema.field(struct).type if struct else pa.null()
    if struct is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ArchiveError(
            f"{path.name} has no column {' or '.join(IMAGE_COLUMNS)} of structs with the images' "
            f"bytes; its columns are {', '.join(schema.names)[:200]}"
        )
    named = _class_names(path, schema)
    label = next((name for name in LABEL_COLUMNS if name in named), None)
    if label is None and len(named) == 1:
        (label,) = named
    if label is None or label not in schema.names:
        raise ArchiveError(
            f"{path.name} names no classes: its metadata says of no column "
            f"{' or '.join(LABEL_COLUMNS)} that it is a ClassLabel with names; write the shards "
            "with the `datasets` package after cast_column('label', ClassLabel(names=...))"
        )
    return struct, label, named[label]


def _class_names(path: Path, schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The columns that are labels by the `datasets` package's metadata, and their names."""
    try:
        features: Any = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {
            column: tuple(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    for names in found.values():
        seen: set[str] = set()
        for name in names:
            sound = isinstance(name, str) and name.strip() and name.isprintable()
            if not sound or name in seen:
                raise ArchiveError(
                    f"{path.name} names a class {name!r:.80}, which is no text or there twice"
                )
            seen.add(name)
    return found


def _listed(
    paths: Sequence[Path], image: str, label: str, classes: tuple[str, ...]
) -> ListedImages:
    labels: list[NDArray[np.int64]] = []
    names: list[str] = []
    for path in paths:
        with _opened(path) as parquet:
            if _columns(path, parquet.schema_arrow) != (image, label, classes):
                raise ArchiveError(
                    f"{path.name} has other columns or class names than the first shard of train; "
                    "give shards of one dataset"
                )
            _refuse_more_rows_than_bytes(path, parquet.metadata.num_rows)
            column = parquet.read(columns=[label])[label]
        labels.append(_checked_labels(path, column, classes))
        names += [f"row {row} of {path.name}" for row in range(len(column))]
    return ListedImages(np.concatenate(labels), names, partial(_contents, paths, image))


def _checked_labels(
    path: Path, column: pa.ChunkedArray, classes: Sequence[str]
) -> NDArray[np.int64]:
    if not pa.types.is_integer(column.type):
        raise ArchiveError(
            f"{path.name} has labels of type {column.type}; whole numbers are wanted"
        )
    signed = column.cast(pa.int64(), safe=False)  # what is too large becomes negative, or none
    labels: NDArray[np.int64] = signed.fill_null(-1).to_numpy()
    (wrong,) = np.nonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        row = int(wrong[0])
        value = column[row].as_py()
        raise ArchiveError(
            f"row {row} of {path.name} has label {'none' if value is None else value}; 0 to "
            f"{len(classes) - 1} are allowed"
        )
    return labels


def _contents(paths: Sequence[Path], image: str) -> Iterator[bytes]:
    for path in paths:
        with _opened(path) as parquet:
            row, room = 0, max(LEAST_BUDGET_BYTES, MOST_RATIO * path.stat().st_size)
            for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=[f"{image}.bytes"]):
                for content in batch.column(0).field("bytes"):
                    image_bytes = _checked_content(path, row, content.as_py())
                    room -= len(image_bytes)
                    if room < 0:
                        raise ArchiveError(
                            f"{path.name} unpacks to more than {MOST_RATIO} times its own size; it "
                            "is refused"
                        )
                    yield image_bytes
                    row += 1


def _refuse_more_rows_than_bytes(path: Path, rows: int) -> None:
    """Equal labels of any number pack to nothing, and are unpacked all at once."""
    if rows > path.stat().st_size:
        raise ArchiveError(f"{path.name} declares {rows} rows, more than its bytes; it is refused")


def _checked_content(path: Path, row: int, content: Any) -> bytes:
    if not isinstance(content, bytes):
        return b""  # which decodes as little as any other bytes that are no image
    if len(content) > MOST_FILE_BYTES:
        raise ArchiveError(
            f"row {row} of {path.name} has an image of {len(content)} bytes; at most "
            f"{MOST_FILE_BYTES} are allowed"
        )
    return content


def _refuse_empty_classes(
    archive: str, split: str, labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    (empty,) = np.nonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        raise ArchiveError(
            f"class {classes[empty[0]][:80]!r} of {archive} has no row in {split}; every class "
            "needs some in train and in test"
        )
