"""The classes and rows of a job: labels, train, validation and test, and each rank's rows.

A position is a row's index in the stored order of its split's files, counted from 0.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.data.catalog import DATASET_NAME, DATASETS, dataset_entry
from cifarray.data.manifest import Manifest, latest_digest, load_manifest, prepare_command
from cifarray.data.parquet import read_columns
from cifarray.digests import content_sha256
from cifarray.errors import DatasetError, JobError
from cifarray.spec.job import DatasetSpec, Job
from cifarray.spec.load import nearest
from cifarray.store import Store

Positions = NDArray[np.int64]
STORED_SPLIT = {"train": "train", "validation": "train", "test": "test"}
"""Validation is cut from the stored train split."""


class Classes(Protocol):
    """What a manifest and the catalog both know of a dataset's classes."""

    @property
    def name(self) -> str:
        """Of the dataset."""

    @property
    def classes(self) -> tuple[str, ...]:
        """By fine label."""

    @property
    def coarse_classes(self) -> tuple[str, ...]:
        """By coarse label."""

    @property
    def fine_to_coarse(self) -> tuple[int, ...]:
        """The coarse label of each fine one."""


@dataclass(frozen=True)
class Labels:
    """The labels of a job, 0 and up, and the stored labels that they correspond to."""

    column: str
    """The stored column that they come from."""
    classes: tuple[str, ...]
    """Their names."""
    stored: tuple[int, ...] | None
    """The stored label of each; None if all are learned as they are stored."""
    coarse_classes: tuple[str, ...] = ()
    """Superclasses that these classes are of; empty if there are none or they are learned."""
    fine_to_coarse: tuple[int, ...] = ()

    def among(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a table are of these classes."""
        if self.stored is None:
            return np.ones(table.num_rows, dtype=np.bool_)
        found: NDArray[np.bool_] = np.isin(table[self.column].to_numpy(), self.stored)
        return found

    def renumbered(self, table: pa.Table) -> pa.Table:
        """A table of these classes' rows with the labels that are learned.

        Raises: DatasetError for a label that no class has, as in a file that was damaged or forged.
        """
        if self.stored is None:
            labels = table[self.column].to_numpy()
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                wrong = labels.min() if labels.min() < 0 else labels.max()
                raise DatasetError(
                    f"a row of the dataset has {self.column} {wrong}, but labels are 0 to "
                    f"{len(self.classes) - 1}; prepare the dataset again (`cifarray data prepare "
                    "--again`)"
                )
            return table
        number_of = np.full(max(self.stored) + 1, -1, dtype=np.int64)
        number_of[list(self.stored)] = np.arange(len(self.stored))
        numbers = pa.array(number_of[table[self.column].to_numpy()])
        return table.set_column(table.schema.get_field_index(self.column), self.column, numbers)


def learned_labels(dataset: DatasetSpec, known: Classes) -> Labels:
    """The labels that a job's dataset section asks for.

    Raises: JobError if the dataset has no coarse labels, or not these classes.
    """
    fine = dataset.labels == "fine"
    names = known.classes if fine else known.coarse_classes
    column = "label" if fine else "coarse_label"
    if not names:
        raise JobError(f"dataset {known.name} was prepared without coarse labels; use fine")
    coarse_classes = known.coarse_classes if fine else ()
    if dataset.classes is None:
        return Labels(column, names, None, coarse_classes, known.fine_to_coarse if fine else ())
    stored = _chosen(dataset, known.name, names)
    classes = tuple(names[label] for label in stored)
    if not coarse_classes:
        return Labels(column, classes, stored)
    coarse = [known.fine_to_coarse[label] for label in stored]
    present = sorted(set(coarse))
    return Labels(
        column,
        classes,
        stored,
        tuple(coarse_classes[label] for label in present),
        tuple(present.index(label) for label in coarse),
    )


def _chosen(dataset: DatasetSpec, name: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """The stored labels of the chosen classes, in the order in which they are learned."""
    if isinstance(dataset.classes, int):
        if dataset.classes > len(names):
            raise JobError(
                f"dataset.classes {dataset.classes} is more than the {len(names)} "
                f"{dataset.labels} classes of {name}"
            )
        return tuple(range(dataset.classes))
    for given in dataset.classes or ():
        if given not in names:
            raise JobError(
                f"dataset {name} has no {dataset.labels} class '{given}'; {nearest(given, names)}"
            )
    return tuple(names.index(given) for given in dataset.classes or ())


class KnownDataset(Classes, Protocol):
    """What the catalog's entry and a manifest both say of a dataset."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) of its images; None if sizes differ."""

    @property
    def train_parts(self) -> tuple[str, ...]:
        """Names of the archive's parts that train comes from."""


def known_dataset(name: str, store: Store | None) -> KnownDataset:
    """The catalog's entry, or, of the user's images, the manifest in the store.

    Raises: JobError for a name that is neither; StoreError.
    """
    try:
        own = store is not None and name not in DATASETS and DATASET_NAME.fullmatch(name)
        if own and store is not None and latest_digest(store, name):
            return load_manifest(store, name)
        return dataset_entry(name)
    except DatasetError as error:
        raise JobError(str(error)) from error


@dataclass(frozen=True)
class Selection:
    """The rows of a job's splits: stored positions, ascending, the validation rows' ids, labels."""

    positions: Mapping[str, Positions]
    validation_row_ids: Positions
    labels: Labels

    def shard(self, split: str, world_size: int, rank: int) -> Positions:
        """The positions that a rank reads; shards differ by at most one row."""
        low, high = shard_range(len(self.positions[split]), world_size, rank)
        return self.positions[split][low:high]

    def shard_rows(self, split: str, world_size: int) -> list[int]:
        """How many rows each rank has."""
        rows = len(self.positions[split])
        ranges = (shard_range(rows, world_size, rank) for rank in range(world_size))
        return [high - low for low, high in ranges]

    @property
    def validation_sha256(self) -> str:
        """sha256 over the sorted validation row_ids as a JSON list."""
        text = json.dumps(sorted(self.validation_row_ids.tolist()), separators=(",", ":"))
        return content_sha256(text)


def shard_range(rows: int, world_size: int, rank: int) -> tuple[int, int]:
    """The half-open range of a rank: the first `rows % world_size` ranks have one more row."""
    size, extra = divmod(rows, world_size)
    low = rank * size + min(rank, extra)
    return low, low + size + (rank < extra)


def select_rows(store: Store, manifest: Manifest, job: Job) -> Selection:
    """Divide train's rows into train and validation, and select test's rows, as the job says.

    Raises: JobError when any of them would be empty, or there is no such class or archive part.
    """
    labels = learned_labels(job.dataset, manifest)
    columns = dict.fromkeys(("row_id", "label", labels.column))
    table = read_columns(store, manifest, "train", list(columns))
    row_ids = table["row_id"].to_numpy().astype(np.int64)
    usable = labels.among(table)
    if job.dataset.archive_part is not None:
        usable &= _of_part(store, manifest, job.dataset.archive_part, row_ids)
    if job.validation.archive_part is None:
        chosen = _first(job.dataset.rows, usable, row_ids)
        train, validation = _without_fraction(job, chosen, row_ids, table["label"].to_numpy())
    else:
        held_back = _of_part(store, manifest, job.validation.archive_part, row_ids)
        train = _first(job.dataset.rows, usable & ~held_back, row_ids)
        validation = np.flatnonzero(labels.among(table) & held_back)
        if not len(validation) or not len(train):
            raise JobError(
                f"validation.archive_part {job.validation.archive_part} leaves {len(train)} rows "
                f"for train and {len(validation)} for validation; choose another part"
            )
    positions = {
        "train": train,
        "validation": validation,
        "test": rows_of_test(store, manifest, labels),
    }
    return Selection(positions, np.sort(row_ids[validation]), labels)


def differences(then: Job, now: Job) -> list[str]:
    """In what two jobs select other rows or classes: dotted fields with both values."""
    return [
        f"{section}.{field} {_in_words(old)}, not {_in_words(new)}"
        for section in ("dataset", "validation")
        for field, old in getattr(then, section)
        if (new := getattr(getattr(now, section), field)) != old
    ]


def _in_words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else json.dumps(value)


def _without_fraction(
    job: Job, chosen: Positions, row_ids: Positions, labels: Positions
) -> tuple[Positions, Positions]:
    """These rows as train and the fraction of them that validates."""
    fraction = job.validation.fraction
    assert fraction is not None  # it is, without an archive part
    held_back = choose_validation(
        row_ids[chosen], labels[chosen].astype(np.int64), fraction, job.validation.seed
    )
    train, validation = chosen[~held_back], chosen[held_back]
    if not len(validation) or not len(train):
        raise JobError(
            f"validation.fraction {fraction} of {len(chosen)} train rows leaves "
            f"{len(train)} for train and {len(validation)} for validation; choose another fraction"
        )
    return train, validation


def _first(rows: int | None, usable: NDArray[np.bool_], row_ids: Positions) -> Positions:
    """Positions of the usable rows, of the first `rows` of them in the archive's order."""
    positions = np.flatnonzero(usable)
    if rows is None or rows >= len(positions):
        return positions
    first: Positions = positions[row_ids[positions] < np.sort(row_ids[positions])[rows]]
    return first


def _of_part(store: Store, manifest: Manifest, name: str, row_ids: Positions) -> NDArray[np.bool_]:
    """Which rows of train come from this part of the archive."""
    parts = {part.name: part for part in manifest.splits["train"].archive_parts}
    if not parts:
        entry = dataset_entry(manifest.name)
        check_part(name, entry)
        if len(entry.train_parts) == 1:
            return np.ones(len(row_ids), dtype=np.bool_)
        raise JobError(
            f"dataset {manifest.name} was prepared by a version that did not record the "
            f"archive's parts; run `{prepare_command(store, manifest.name)}` again"
        )
    check_part(name, manifest)
    first = parts[name].first_row_id
    return (row_ids >= first) & (row_ids < first + parts[name].rows)


def check_part(name: str, known: KnownDataset) -> None:
    """Refuse a part that the dataset does not have. Raises: JobError."""
    if name not in known.train_parts:
        raise JobError(
            f"{known.name} has no archive part '{name}'; {nearest(name, known.train_parts)}"
        )


def rows_of_test(store: Store, manifest: Manifest, labels: Labels) -> Positions:
    """The test rows of these classes. Raises: JobError if there is none."""
    if labels.stored is None:
        return np.arange(manifest.splits["test"].rows, dtype=np.int64)
    table = read_columns(store, manifest, "test", [labels.column])
    positions = np.flatnonzero(labels.among(table))
    if not len(positions):
        raise JobError(
            f"{manifest.name} has no test rows of the chosen classes; choose other classes, or "
            "another dataset"
        )
    return positions


def choose_validation(
    row_ids: Positions, labels: Positions, fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Mark `fraction` of every class, chosen by a hash of (seed, row_id).

    Class sizes are rounded so that the whole comes as near to `fraction` as it can (largest
    remainders first). A hash, unlike a generator, gives the same rows under any library version.
    """
    digest = [
        hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest()
        for row_id in row_ids.tolist()
    ]
    draw = np.frombuffer(b"".join(digest), dtype=">u8").astype(np.uint64)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * fraction
    quota = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    marked = np.zeros(len(row_ids), dtype=np.bool_)
    for label, count in zip(classes.tolist(), quota.tolist(), strict=True):
        members = np.flatnonzero(labels == label)
        marked[members[np.lexsort((row_ids[members], draw[members]))[:count]]] = True
    return marked
