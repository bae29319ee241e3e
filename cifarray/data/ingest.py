"""Turn an archive into a dataset in the store: find it, write what is missing, put it in use.

Parquet parts are written first, then the manifest that makes them valid.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarray.data.catalog import DatasetEntry, dataset_entry, user_dataset
from cifarray.data.decoded_archive import UNREADABLE, Content, open_images
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.manifest import (
    ArchivePart,
    FileManifest,
    Manifest,
    SourceManifest,
    SplitManifest,
    find_manifest,
    latest_digest,
    prepare_command,
)
from cifarray.data.parquet import SplitRows, dataset_schema, plan_files, write_part
from cifarray.data.progress import Progress, Silent
from cifarray.data.readers.base import TEST_SPLITS, Reading, SplitArrays, check_splits
from cifarray.data.readers.digits import read_digits
from cifarray.data.readers.files import open_files
from cifarray.data.readers.registry import IMAGE_LAYOUTS, LAYOUTS
from cifarray.data.source import Source, combined_sha256, find_source
from cifarray.data.statistics import count_pixels, moments
from cifarray.digests import content_sha256, file_sha256
from cifarray.errors import ArchiveError, DatasetError, InputError, KeyMissingError
from cifarray.spec.load import unknown_name
from cifarray.store import Store
from cifarray.store.layout import DATASETS, dataset_prefix, latest_key, manifest_key

DIGITS_NAME = "sklearn.datasets.load_digits"
ARRAYS_VERSION, IMAGES_VERSION = 1, 3
"""Part of the digest: raise it whenever the same archive, of arrays or of image files, would give
other bytes."""


@dataclass(frozen=True)
class Ingest:
    """How an archive of image files is to be read."""

    layout: str | None = None
    """Of the user's images; the catalog knows that of its datasets."""
    crop: bool = False
    """Crop images to the archive's boxes."""
    skip_bad: bool = False
    """Skip images that do not decode, and count them."""
    accept_loss: bool = False
    """Continue where more than 1 % of a class is left out."""
    test_split: str = "test"
    """The split of the archive to use as test."""


def prepare(
    store: Store,
    name: str,
    archive: str | None = None,
    progress: Progress | None = None,
    *,
    again: bool = False,
    how: Ingest | None = None,
) -> tuple[Manifest, bool]:
    """Bring a dataset into the store; the manifest, and whether anything had to be written.

    `archive` is a path or an http(s) address; None takes the official one. Several processes may do
    this at once, and a killed one is simply run again: the same digest means the same bytes, and
    parts without a manifest do not count as a dataset. `again` writes even if it exists, as when
    verify finds damage.

    Raises:
        DatasetError: the catalog has no such name, or another version came into use meanwhile.
        InputError: the dataset's layout does not have what is asked for.
        ArchiveError: the archive is missing, broken, malicious or another dataset's.
        StoreError: the store cannot be used.
    """
    how, progress = how or Ingest(), progress or Silent()
    entry = user_dataset(name, how.layout) if how.layout is not None else dataset_entry(name)
    _refuse_what_is_not_read(entry, how)
    store.check_writes()
    before, was = _tag_of_latest(store, name), _named(store, name)
    manifest, written = _prepared(store, entry, archive, progress, again, how)
    _put_in_use(store, manifest, before)
    if was is not None and was != manifest.digest:
        progress.remark(
            f"{name} in this store was {was[:12]}; new runs use {manifest.digest[:12]}, runs "
            "that have started keep the old one"
        )
    return manifest, written


def _prepared(
    store: Store,
    entry: DatasetEntry,
    archive: str | None,
    progress: Progress,
    again: bool,
    how: Ingest,
) -> tuple[Manifest, bool]:
    """The dataset's manifest, and whether it had to be written."""
    known = _published_before(store, entry, how.crop) if archive is None and not again else None
    if known:
        return known, False
    reading = Reading(how.crop, how.test_split, LeftOutCounter(accept_loss=how.accept_loss))
    source, opened = _opened(entry, archive, how, reading, progress)
    digest = dataset_digest(source.sha256, entry, crop=how.crop, test_split=how.test_split)
    whole = None if again else _whole(store, entry, digest)
    if whole and _counts_agree(entry, source, how, whole):
        return whole, False
    with opened() as content:
        manifest = write_dataset(store, entry, source, digest, content, progress, reading)
    return manifest, True


def _counts_agree(entry: DatasetEntry, source: Source, how: Ingest, whole: Manifest) -> bool:
    """Whether a manifest says what its source leaves out, as far as its files' names tell.

    The checksum of a folder is over the files that are read; others may have come meanwhile.
    """
    if whole.left_out is None:  # of before anything was counted: written again, to the same bytes
        return False
    if entry.layout not in IMAGE_LAYOUTS or not source.path.is_dir():
        return True
    layout = IMAGE_LAYOUTS[entry.layout]
    now = Reading(how.crop, how.test_split, LeftOutCounter(accept_loss=True))
    with open_files(source.path, layout.wanted(how.test_split), now.left_out) as files:
        layout.listed(entry, files, now)
    listed = [
        entry for entry in whole.left_out if entry.kind != "frame" and entry.reason != UNREADABLE
    ]
    return listed == list(now.left_out.entries())


def _refuse_what_is_not_read(entry: DatasetEntry, how: Ingest) -> None:
    layout = IMAGE_LAYOUTS.get(entry.layout)
    if how.crop and not (layout and layout.boxes):
        having = ", ".join(name for name, other in IMAGE_LAYOUTS.items() if other.boxes)
        raise InputError(
            f"{entry.name} has no bounding boxes to crop to; leave --crop out (it is for {having})"
        )
    if how.skip_bad and not layout:
        raise InputError(
            f"{entry.name} contains arrays of pixels, which always decode; leave --skip-bad out"
        )
    if how.test_split not in TEST_SPLITS:
        raise InputError(unknown_name("test split", how.test_split, TEST_SPLITS))
    if how.test_split != "test" and not (layout and layout.splits):
        raise InputError(
            f"{entry.name} has fixed train and test splits; leave --test-split out (it is for "
            "your own images)"
        )


def dataset_digest(
    archive_sha256: str, entry: DatasetEntry, *, crop: bool = False, test_split: str = "test"
) -> str:
    """What names a dataset's folder; known before anything is written."""
    said = f"{archive_sha256}\n{entry.name}\n{ingest_version(entry)}\n" + "crop\n" * crop
    said += f"test split {test_split}\n" * (test_split != "test")
    return content_sha256(said)


def _opened(
    entry: DatasetEntry, archive: str | None, how: Ingest, reading: Reading, progress: Progress
) -> tuple[Source, Callable[[], AbstractContextManager[Content]]]:
    """What the dataset is made from, and what opens it."""
    if entry.layout == "digits":
        if archive is not None:
            raise ArchiveError(f"{entry.name} comes with scikit-learn; leave --archive out")
        splits = read_digits(entry)
        sums = ((split, _arrays_sha256(arrays)) for split, arrays in splits.items())
        source = Source(Path(), DIGITS_NAME, combined_sha256(sums), published=True)
        return source, lambda: _arrays(entry, source, lambda: splits, progress)
    source = find_source(entry, archive, progress, how.test_split)
    if entry.layout in IMAGE_LAYOUTS:
        return source, lambda: open_images(entry, source, reading, how.skip_bad, progress)
    read = partial(LAYOUTS[entry.layout], entry, source.path, reading.left_out)
    return source, lambda: _arrays(entry, source, read, progress)


@contextmanager
def _arrays(
    entry: DatasetEntry,
    source: Source,
    read: Callable[[], Mapping[str, SplitArrays]],
    progress: Progress,
) -> Iterator[Content]:
    """The content of an archive of arrays of pixels."""
    progress.start(f"reading {source.name}", None, "rows")
    splits = read()
    check_splits(entry, splits)
    yield Content(
        entry.shape,
        entry.classes,
        splits,
        count_pixels(splits["train"].images),
        coarse_classes=entry.coarse_classes,
        fine_to_coarse=entry.fine_to_coarse,
    )


def _arrays_sha256(arrays: SplitArrays) -> str:
    parts = (np.ascontiguousarray(arrays.images), arrays.labels.astype("<i2"))
    return content_sha256(b"".join(part.tobytes() for part in parts))


def _published_before(store: Store, entry: DatasetEntry, crop: bool) -> Manifest | None:
    """The dataset that an earlier call made from the published archive, without fetching it."""
    for folder in store.folders(f"{DATASETS}/{entry.name}"):
        manifest = _whole(store, entry, folder)
        if manifest is None or manifest.ingest_version != ingest_version(entry):
            continue
        if manifest.source.published and manifest.source.crop == crop:
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
    """The version of LATEST, None if there is none."""
    try:
        return store.read_tagged(latest_key(name))[1]
    except KeyMissingError:
        return None


def _put_in_use(store: Store, manifest: Manifest, before: str | None) -> None:
    """Make LATEST name this dataset, unless LATEST has changed since `before`.

    Raises: DatasetError if it names another one now, which somebody prepared meanwhile.
    """
    key, data = latest_key(manifest.name), f"{manifest.digest}\n".encode()
    if _named(store, manifest.name) == manifest.digest:
        return
    written = store.create(key, data) if before is None else store.replace(key, data, before)
    if written is None and _named(store, manifest.name) != manifest.digest:
        raise DatasetError(
            f"dataset {manifest.name} {manifest.digest[:12]} is in {store.uri} but not in use, "
            "because somebody prepared another version meanwhile; to use this one, run "
            f"`{prepare_command(store, manifest.name)}` again"
        )


def _named(store: Store, name: str) -> str | None:
    """The digest in use; None if there is none, or LATEST is damaged."""
    try:
        return latest_digest(store, name)
    except DatasetError:
        return None


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
            files.append(
                FileManifest(
                    key=key,
                    rows=rows,
                    size_bytes=path.stat().st_size,
                    sha256=file_sha256(path),
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
