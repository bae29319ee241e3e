"""Turn an archive into a dataset in the store: Parquet parts first, then what makes them valid."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarray.data.archives.arrays import SplitArrays, check_splits
from cifarray.data.archives.cifar import read_cifar
from cifarray.data.archives.digits import read_digits
from cifarray.data.archives.idx import read_idx
from cifarray.data.catalog import DatasetEntry, dataset_entry
from cifarray.data.manifest import (
    ArchivePart,
    FileManifest,
    Manifest,
    SourceManifest,
    SplitManifest,
    dataset_prefix,
    find_manifest,
    latest_digest,
    latest_key,
    manifest_key,
    prepare_command,
)
from cifarray.data.parquet import dataset_schema, plan_files, write_part
from cifarray.data.progress import Progress, Silent
from cifarray.data.source import Source, combined_sha256, find_source
from cifarray.data.statistics import count_pixels, moments
from cifarray.errors import ArchiveError, DatasetError, KeyMissingError
from cifarray.store import Store

INGEST_VERSION = 1
"""Part of the digest: raise it whenever the same archive would give other bytes."""

DIGITS_NAME = "sklearn.datasets.load_digits"

Splits = Mapping[str, SplitArrays]
LAYOUTS: dict[str, Callable[[DatasetEntry, Path], Splits]] = {
    "cifar-pickle": read_cifar,
    "idx": read_idx,
}


def prepare(
    store: Store,
    name: str,
    archive: str | None = None,
    progress: Progress | None = None,
    *,
    again: bool = False,
) -> tuple[Manifest, bool]:
    """Bring a dataset into the store; the manifest, and whether anything had to be written.

    `archive` is a path or an http(s) address; None takes the official one. Several may do this at
    once, and one that was killed is simply done again: the same digest means the same bytes, and
    parts without a manifest are no dataset. `again` writes though it is there, as when verify
    finds damage.

    Raises:
        DatasetError: the catalog has no such name, or another version came into use meanwhile.
        ArchiveError: the archive is missing, broken, malicious or another dataset's.
        StoreError: the store cannot be used.
    """
    entry = dataset_entry(name)
    progress = progress or Silent()
    store.check()
    before = _tag_of_latest(store, name)
    known = _published_before(store, entry) if archive is None and not again else None
    if known:
        return _in_use(store, known, before), False
    source, read = _opened(entry, archive, progress)
    whole = None if again else _whole(store, entry, dataset_digest(source.sha256, name))
    if whole:
        return _in_use(store, whole, before), False
    progress.start(f"reading {source.name}", None, "rows")
    return _in_use(store, _write(store, entry, source, read(), progress), before), True


def dataset_digest(archive_sha256: str, name: str) -> str:
    """What names a dataset's folder; known before anything is written."""
    return hashlib.sha256(f"{archive_sha256}\n{name}\n{INGEST_VERSION}\n".encode()).hexdigest()


def stored_order(split: str, rows: int) -> NDArray[np.int64]:
    """The row_ids of a split in the order in which they are stored, shuffled once and for all.

    By a hash, which unlike a generator gives the same order under any version of NumPy.
    """
    draws = b"".join(
        hashlib.blake2b(f"{split}:{row}".encode(), digest_size=8).digest() for row in range(rows)
    )
    return np.argsort(np.frombuffer(draws, dtype=">u8"), kind="stable").astype(np.int64)


def _opened(
    entry: DatasetEntry, archive: str | None, progress: Progress
) -> tuple[Source, Callable[[], Splits]]:
    """What the dataset is made from, and what reads it."""
    if entry.layout != "digits":
        source = find_source(entry, archive, progress)
        return source, lambda: LAYOUTS[entry.layout](entry, source.path)
    if archive is not None:
        raise ArchiveError(f"{entry.name} comes with scikit-learn; leave --archive out")
    splits = read_digits(entry)
    sums = ((split, _arrays_sha256(arrays)) for split, arrays in splits.items())
    return Source(Path(), DIGITS_NAME, combined_sha256(sums), published=True), lambda: splits


def _arrays_sha256(arrays: SplitArrays) -> str:
    parts = (np.ascontiguousarray(arrays.images), arrays.labels.astype("<i2"))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def _published_before(store: Store, entry: DatasetEntry) -> Manifest | None:
    """The dataset that an earlier call made from the published archive, without fetching it."""
    for folder in store.folders(f"datasets/{entry.name}"):
        manifest = _whole(store, entry, folder)
        if manifest and manifest.source.published and manifest.ingest_version == INGEST_VERSION:
            return manifest
    return None


def _whole(store: Store, entry: DatasetEntry, digest: str) -> Manifest | None:
    """The manifest of a digest whose files all lie there with the size that it says.

    Written again, to the same bytes, is one of before the archive's parts were listed.
    """
    try:
        manifest = find_manifest(store, entry.name, digest)
    except DatasetError:
        return None
    if manifest is None:
        return None
    if len(entry.train_parts) > 1 and not manifest.splits["train"].archive_parts:
        return None
    prefix = dataset_prefix(entry.name, digest)
    sizes = {stored.key: stored.size_bytes for stored in store.list(prefix)}
    files = (file for split in manifest.splits.values() for file in split.files)
    sound = all(sizes.get(f"{prefix}/{file.key}") == file.size_bytes for file in files)
    return manifest if sound else None


def _tag_of_latest(store: Store, name: str) -> str | None:
    """The version of LATEST, None where there is none."""
    try:
        return store.read_tagged(latest_key(name))[1]
    except KeyMissingError:
        return None


def _in_use(store: Store, manifest: Manifest, before: str | None) -> Manifest:
    """Let LATEST name this dataset, unless it has changed since `before`, when this call began.

    Raises: DatasetError if it names another one now, which somebody prepared meanwhile.
    """
    key, data = latest_key(manifest.name), f"{manifest.digest}\n".encode()
    if _named(store, manifest.name) == manifest.digest:
        return manifest
    written = store.create(key, data) if before is None else store.replace(key, data, before)
    if written is None and _named(store, manifest.name) != manifest.digest:
        raise DatasetError(
            f"dataset {manifest.name} {manifest.digest[:12]} is in {store.uri} and not in use: "
            f"somebody prepared another version meanwhile; to use this one, run "
            f"`{prepare_command(store, manifest.name)}` again"
        )
    return manifest


def _named(store: Store, name: str) -> str | None:
    """The digest in use; None where there is none, or LATEST is damaged."""
    try:
        return latest_digest(store, name)
    except DatasetError:
        return None


def _write(
    store: Store,
    entry: DatasetEntry,
    source: Source,
    splits: Splits,
    progress: Progress,
) -> Manifest:
    check_splits(entry, splits)
    digest = dataset_digest(source.sha256, entry.name)
    rows = sum(arrays.rows for arrays in splits.values())
    progress.start(f"writing {entry.name}", rows, "rows")
    written = {
        split: _write_split(store, entry, digest, split, arrays, progress)
        for split, arrays in splits.items()
    }
    mean, std = moments(count_pixels(splits["train"].images))
    complete = all(arrays.rows == entry.rows[split] for split, arrays in splits.items())
    manifest = Manifest(
        name=entry.name,
        title=entry.title,
        digest=digest,
        ingest_version=INGEST_VERSION,
        shape=entry.shape,
        classes=entry.classes,
        coarse_classes=entry.coarse_classes,
        fine_to_coarse=entry.fine_to_coarse,
        splits=written,
        mean=mean,
        std=std,
        source=SourceManifest(
            sha256=source.sha256,
            name=source.name,
            complete=complete,
            published=source.published,
        ),
        citation=entry.citation,
    )
    store.write_json(manifest_key(entry.name, digest), manifest.model_dump(mode="json"))
    return manifest


def _write_split(
    store: Store,
    entry: DatasetEntry,
    digest: str,
    split: str,
    arrays: SplitArrays,
    progress: Progress,
) -> SplitManifest:
    schema = dataset_schema(entry.shape, coarse=bool(entry.coarse_classes))
    order = stored_order(split, arrays.rows)
    files: list[FileManifest] = []
    first = 0
    with tempfile.TemporaryDirectory(prefix="cifarray-") as folder:
        path = Path(folder) / "part.parquet"
        for number, row_groups in enumerate(plan_files(arrays.rows, entry.image_bytes)):
            rows = sum(row_groups)
            write_part(path, schema, arrays, order[first : first + rows], row_groups)
            key = f"{split}/part-{number:05d}.parquet"
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files.append(
                FileManifest(
                    key=key,
                    rows=rows,
                    size_bytes=path.stat().st_size,
                    sha256=sha256,
                    row_groups=tuple(row_groups),
                )
            )
            store.upload(path, f"{dataset_prefix(entry.name, digest)}/{key}")
            progress.advance(rows)
            first += rows
    counts = np.bincount(arrays.labels, minlength=len(entry.classes))
    return SplitManifest(
        rows=arrays.rows,
        files=tuple(files),
        class_counts=tuple(counts.tolist()),
        archive_parts=_archive_parts(split, arrays),
    )


def _archive_parts(split: str, arrays: SplitArrays) -> tuple[ArchivePart, ...]:
    parts, first = [], 0
    for name, rows in arrays.parts or ((split, arrays.rows),):
        parts.append(ArchivePart(name=name, first_row_id=first, rows=rows))
        first += rows
    return tuple(parts)
