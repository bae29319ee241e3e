"""What is known of a dataset before its rows are read: by the catalog, or by a store's manifest."""

from typing import Protocol

from cifarray.data.catalog import DATASETS, OWN_NAME, dataset_entry
from cifarray.data.labels import Classes
from cifarray.data.manifest import latest_digest, load_manifest
from cifarray.errors import DatasetError, JobError
from cifarray.store import Store


class KnownDataset(Classes, Protocol):
    """What the catalog's entry and a manifest both say of a dataset."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) of its images; None where sizes differ."""

    @property
    def train_parts(self) -> tuple[str, ...]:
        """Names of the archive's parts that train comes from."""


def known_dataset(name: str, store: Store | None) -> KnownDataset:
    """The catalog's entry, or, of images of the user's own, the manifest in the store.

    Raises: JobError for a name that is neither; StoreError.
    """
    try:
        own = store is not None and name not in DATASETS and OWN_NAME.fullmatch(name)
        if own and store is not None and latest_digest(store, name):
            return load_manifest(store, name)
        return dataset_entry(name)
    except DatasetError as error:
        raise JobError(str(error)) from error
