"""Compare a dataset's files with its manifest: every checksum, row count and schema."""

from collections.abc import Iterator

import numpy as np

from cifarray.data.manifest import FileManifest, Manifest, load_manifest
from cifarray.data.parquet import dataset_schema, opened, read_columns
from cifarray.data.progress import Progress, Silent
from cifarray.digests import pieces_sha256
from cifarray.errors import DatasetError, KeyMissingError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix

READ_BYTES = 1 << 20


def verify_dataset(
    store: Store, name: str, digest: str | None = None, progress: Progress | None = None
) -> list[str]:
    """What differs from the manifest, one sentence each; empty when all is as it says.

    Raises: DatasetError if the dataset is missing.
    """
    manifest = load_manifest(store, name, digest)
    progress = progress or Silent()
    total = sum(f.size_bytes for split in manifest.splits.values() for f in split.files)
    progress.start(f"verifying {name}", total, "bytes")
    problems = []
    for split, content in manifest.splits.items():
        found = []
        for file in content.files:
            found += _file_problems(store, manifest, file, progress)
        problems += found or _row_problems(store, manifest, split)
    return problems


def _file_problems(
    store: Store, manifest: Manifest, file: FileManifest, progress: Progress
) -> list[str]:
    key = f"{dataset_prefix(manifest.name, manifest.digest)}/{file.key}"
    try:
        size_bytes = store.size(key)
        if size_bytes != file.size_bytes:
            return [f"{key} has {size_bytes} bytes, but the manifest says {file.size_bytes}"]
        sha256 = pieces_sha256(_pieces(store, key, progress))
        if sha256 != file.sha256:
            return [f"{key} has sha256 {sha256}, but the manifest says {file.sha256}"]
        with opened(store, manifest, file):
            return []
    except KeyMissingError:
        return [f"{key} is missing"]
    except DatasetError as error:
        return [str(error)]


def _pieces(store: Store, key: str, progress: Progress) -> Iterator[bytes]:
    with store.open_input(key) as source:
        while chunk := source.read(READ_BYTES):
            yield chunk
            progress.advance(len(chunk))


def _row_problems(store: Store, manifest: Manifest, split: str) -> list[str]:
    """Whether intact files have the rows that the manifest counts."""
    expected = manifest.splits[split]
    where = f"{dataset_prefix(manifest.name, manifest.digest)}/{split}"
    coarse = bool(manifest.coarse_classes)
    names = [name for name in dataset_schema(manifest.shape, coarse).names if name != "image"]
    table = read_columns(store, manifest, split, names)
    problems = []
    row_ids, labels = table["row_id"].to_numpy(), table["label"].to_numpy()
    if not np.array_equal(np.sort(row_ids), np.arange(expected.rows)):
        problems.append(
            f"{where} does not have each row_id from 0 to {expected.rows - 1} exactly once"
        )
    if np.any((labels < 0) | (labels >= len(manifest.classes))):
        return [*problems, f"{where} has labels that are not classes of the manifest"]
    counts = np.bincount(labels, minlength=len(manifest.classes))
    if tuple(counts.tolist()) != expected.class_counts:
        problems.append(f"{where} has different row counts per class than the manifest")
    if coarse:
        expected_coarse = np.array(manifest.fine_to_coarse)[labels]
        if not np.array_equal(table["coarse_label"].to_numpy(), expected_coarse):
            problems.append(f"{where} has coarse labels that do not belong to the fine labels")
    return problems
