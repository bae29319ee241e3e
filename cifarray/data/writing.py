"""Write a dataset into the store: Parquet parts first, then the manifest that makes them valid."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry
from cifarray.data.decoded_archive import Content
from cifarray.data.manifest import (
    ArchivePart,
    FileManifest,
    Manifest,
    SourceManifest,
    SplitManifest,
)
from cifarray.data.parquet import SplitRows, dataset_schema, plan_files, write_part
from cifarray.data.progress import Progress
from cifarray.data.readers.images import Reading
from cifarray.data.readers.registry import IMAGE_LAYOUTS
from cifarray.data.source import Source
from cifarray.data.statistics import moments
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix, manifest_key

ARRAYS_VERSION, IMAGES_VERSION = 1, 3
"""Part of the digest: raise it whenever the same archive, of arrays or of image files, would give
other bytes."""


def stored_order(split: str, rows: int) -> NDArray[np.int64]:
    """The row_ids of a split in the order in which they are stored, shuffled once and for all.

    By a hash, which unlike a generator gives the same order under any version of NumPy.
    """
    draws = b"".join(
        hashlib.blake2b(f"{split}:{row}".encode(), digest_size=8).digest() for row in range(rows)
    )
    return np.argsort(np.frombuffer(draws, dtype=">u8"), kind="stable").astype(np.int64)


def ingest_version(entry: DatasetEntry) -> int:
    """That of the layout which the dataset's archive has."""
    return IMAGES_VERSION if entry.layout in IMAGE_LAYOUTS else ARRAYS_VERSION


def write_dataset(
    store: Store,
    entry: DatasetEntry,
    source: Source,
    digest: str,
    content: Content,
    progress: Progress,
    how: Reading,
) -> Manifest:
    """Write the parts and, when all are there, the manifest; `how` the archive was read."""
    rows = {split: part.rows for split, part in content.splits.items()}
    progress.start(f"writing {entry.name}", sum(rows.values()), "rows")
    folder = dataset_prefix(entry.name, digest)
    written = {split: _write_split(store, folder, content, split, progress) for split in rows}
    mean, std = moments(content.pixels)
    manifest = Manifest(
        name=entry.name,
        title=entry.title,
        digest=digest,
        ingest_version=ingest_version(entry),
        shape=content.shape,
        storage="encoded" if content.shape is None else "fixed",
        classes=content.classes,
        coarse_classes=content.coarse_classes,
        fine_to_coarse=content.fine_to_coarse,
        splits=written,
        mean=mean,
        std=std,
        source=SourceManifest(
            sha256=source.sha256,
            name=source.name,
            complete=not how.left_out.incomplete()
            and all(rows[split] == entry.rows.get(split, rows[split]) for split in rows),
            published=source.published,
            crop=how.crop,
            test_split=how.test_split,
            missing_images=content.missing,
            skipped_images=how.left_out.images(),
            converted_images=dict(content.converted),
        ),
        left_out=how.left_out.entries(),
        citation=entry.citation,
    )
    store.write_json(manifest_key(entry.name, digest), manifest.model_dump(mode="json"))
    return manifest


def _write_split(
    store: Store,
    folder: str,
    content: Content,
    split: str,
    progress: Progress,
) -> SplitManifest:
    part = content.splits[split]
    schema = dataset_schema(content.shape, coarse=bool(content.coarse_classes))
    order = stored_order(split, part.rows)
    files: list[FileManifest] = []
    first = 0
    with tempfile.TemporaryDirectory(prefix="cifarray-") as scratch:
        path = Path(scratch) / "part.parquet"
        plan = plan_files(part.rows, part.image_bytes, encoded=content.shape is None)
        for number, row_groups in enumerate(plan):
            rows = sum(row_groups)
            write_part(path, schema, part, order[first : first + rows], row_groups)
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
            store.upload(path, f"{folder}/{key}")
            progress.advance(rows)
            first += rows
    counts = np.bincount(part.labels, minlength=len(content.classes))
    return SplitManifest(
        rows=part.rows,
        files=tuple(files),
        class_counts=tuple(counts.tolist()),
        archive_parts=_archive_parts(split, part),
    )


def _archive_parts(split: str, rows: SplitRows) -> tuple[ArchivePart, ...]:
    parts, first = [], 0
    for name, count in rows.parts or ((split, rows.rows),):
        parts.append(ArchivePart(name=name, first_row_id=first, rows=count))
        first += count
    return tuple(parts)
