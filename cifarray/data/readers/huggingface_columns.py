"""The columns of a Parquet shard in the Hub's layout: images, labels, superclasses, others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifarray.data.readers.containers import HEAD_BYTES, MOST_FILE_BYTES, refuse_pointer
from cifarray.errors import ArchiveError
from cifarray.spec.bounds import parse_json

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "fine_labels")
COARSE_COLUMNS = ("coarse_label", "coarse_labels", "superclass", "super_class", "supercategory")


@dataclass(frozen=True)
class Columns:
    """What a shard's columns are for."""

    image: str
    label: str
    classes: tuple[str, ...]
    coarse: str | None
    """The column of superclasses, where there is one."""
    coarse_classes: tuple[str, ...]
    others: tuple[str, ...]
    """The columns that are not read."""


@dataclass(frozen=True)
class LabelColumn:
    """The whole numbers of a column, and which of them are null."""

    values: NDArray[np.int64]
    """-1 where there is none."""
    null: NDArray[np.bool_]

    def reasons(self, wrong: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
        """The rows whose labels are those of no class, by the reason to tell."""
        unlabeled = ~self.null & (self.values == -1)
        found = {
            "no label": self.null,
            "label -1": unlabeled,
            "label that names no class": ~self.null & ~unlabeled,
        }
        rows = {reason: np.flatnonzero(wrong & of) for reason, of in found.items()}
        return {reason: of for reason, of in rows.items() if len(of)}


@contextmanager
def open_shard(name: str, place: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file. Raises: ArchiveError if it is none, also while it is read."""
    try:
        with place.open("rb") as file:
            refuse_pointer(name, file.read(HEAD_BYTES))
        with pq.ParquetFile(place, thrift_string_size_limit=MOST_FILE_BYTES) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # of a column's name
        reason = " ".join(str(error).split())[:200]
        raise ArchiveError(
            f"{name} is not a valid Parquet file ({reason}); download it again"
        ) from error


def find_columns(name: str, schema: pa.Schema) -> Columns:
    """What the columns are for, by their names and the schema's metadata. Raises: ArchiveError."""
    for known in (*IMAGE_COLUMNS, *LABEL_COLUMNS, *COARSE_COLUMNS):
        if schema.names.count(known) > 1:
            raise ArchiveError(f"{name} has two columns called {known}; remove one")
    image = next((column for column in IMAGE_COLUMNS if column in schema.names), None)
    kind: Any = schema.field(image).type if image else pa.null()
    if image is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ArchiveError(
            f"{name} has no column {' or '.join(IMAGE_COLUMNS)} of structs with the images' "
            f"bytes; its columns are {', '.join(schema.names)[:200]}: rename the column of the "
            "images"
        )
    named = {
        column: names
        for column, names in _class_names(name, schema).items()
        if column in schema.names
    }
    label = next((column for column in LABEL_COLUMNS if column in named), None)
    if label is None and len(named) == 1:
        (label,) = named
    if label is None:
        raise ArchiveError(
            f"{name} names no classes: in its metadata no column {' or '.join(LABEL_COLUMNS)} is "
            "a ClassLabel with names; write the shards with the `datasets` package after "
            "cast_column('label', ClassLabel(names=...))"
        )
    coarse = next(
        (column for column in COARSE_COLUMNS if column in named and column != label), None
    )
    inner = [f"{image}.{field.name}" for field in kind if field.name != "bytes"]
    others = [column for column in schema.names if column not in (image, label, coarse)]
    return Columns(
        image, label, named[label], coarse, named[coarse] if coarse else (), (*others, *inner)
    )


def is_empty(metadata: pq.FileMetaData, column: str) -> bool:
    """Whether a column holds nothing but nulls, as far as the file's statistics tell."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if f"{chunk.path_in_schema}.".startswith(f"{column}."):
                told = chunk.statistics
                if told is None or not told.has_null_count or told.null_count != group.num_rows:
                    return False
    return True


def read_labels(name: str, parquet: pq.ParquetFile, column: str) -> LabelColumn:
    """A column of labels. Raises: ArchiveError if they are no whole numbers."""
    found = parquet.read(columns=[column])[column]
    if not pa.types.is_integer(found.type):
        raise ArchiveError(
            f"{name} has labels of type {found.type} in {column}; they must be whole numbers: "
            f"cast_column('{column}', ClassLabel(names=...)) makes them so"
        )
    signed = found.cast(pa.int64(), safe=False)  # what is too large becomes negative
    null = np.asarray(signed.is_null())
    return LabelColumn(signed.fill_null(-1).to_numpy(), null)


def _class_names(name: str, schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The columns that are labels by the `datasets` package's metadata, and their names."""
    try:
        features: Any = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {
            column: tuple(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    for names in found.values():
        seen: set[str] = set()
        for text in names:
            sound = isinstance(text, str) and text.strip() and text.isprintable()
            if not sound or text in seen:
                raise ArchiveError(
                    f"{name} names a class {text!r:.80}, which is not text or occurs twice; "
                    "rename it"
                )
            seen.add(text)
    return found
