"""The classes that a job learns, all of a dataset's or some, and the numbers they go by."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifarray.errors import DatasetError, JobError
from cifarray.spec.job import DatasetSpec
from cifarray.spec.load import nearest


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
    """The labels that a job learns, 0 and up, and the stored ones that they stand for."""

    column: str
    """The stored column that they come from."""
    classes: tuple[str, ...]
    """Their names."""
    stored: tuple[int, ...] | None
    """The stored label of each; None where all are learnt as they are stored."""
    coarse_classes: tuple[str, ...] = ()
    """Superclasses that these classes are of; empty where there are none or they are learnt."""
    fine_to_coarse: tuple[int, ...] = ()

    def among(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a table are of these classes."""
        if self.stored is None:
            return np.ones(table.num_rows, dtype=np.bool_)
        found: NDArray[np.bool_] = np.isin(table[self.column].to_numpy(), self.stored)
        return found

    def renumbered(self, table: pa.Table) -> pa.Table:
        """A table of these classes' rows with the labels that are learnt.

        Raises: DatasetError for a label that no class has, as in a file that was damaged or forged.
        """
        if self.stored is None:
            labels = table[self.column].to_numpy()
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                wrong = labels.min() if labels.min() < 0 else labels.max()
                raise DatasetError(
                    f"a row of the dataset has {self.column} {wrong}, and labels are 0 to "
                    f"{len(self.classes) - 1}; prepare it again (`cifarray data prepare --again`)"
                )
            return table
        number_of = np.full(max(self.stored) + 1, -1, dtype=np.int64)
        number_of[list(self.stored)] = np.arange(len(self.stored))
        numbers = pa.array(number_of[table[self.column].to_numpy()])
        return table.set_column(table.schema.get_field_index(self.column), self.column, numbers)


def learnt_labels(dataset: DatasetSpec, known: Classes) -> Labels:
    """The labels that a job's dataset section asks for.

    Raises: JobError where the dataset has no coarse labels, or not these classes.
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
    """The stored labels of the chosen classes, in the order in which they are learnt."""
    if isinstance(dataset.classes, int):
        if dataset.classes > len(names):
            raise JobError(
                f"dataset.classes {dataset.classes} is more than the {len(names)} "
                f"{dataset.labels} classes that {name} has"
            )
        return tuple(range(dataset.classes))
    for given in dataset.classes or ():
        if given not in names:
            raise JobError(
                f"dataset {name} has no {dataset.labels} class '{given}'; {nearest(given, names)}"
            )
    return tuple(names.index(given) for given in dataset.classes or ())
