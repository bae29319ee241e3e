"""The manifest of a dataset in the store: what makes its files a dataset, written after them."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from cifarray.data.catalog import DATASETS, dataset_entry
from cifarray.data.left_out import LeftOut
from cifarray.errors import DatasetError, KeyMissingError
from cifarray.spec.record import Record
from cifarray.store import Store
from cifarray.store.layout import latest_key, manifest_key

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PartKey = Annotated[str, StringConstraints(pattern=r"^[a-z]+/part-[0-9]{5}\.parquet$")]
Count = Annotated[int, Field(ge=0)]


class FileManifest(Record):
    """One Parquet file."""

    key: PartKey
    """Relative to the dataset's folder."""
    rows: int = Field(ge=1)
    size_bytes: int = Field(ge=1)
    sha256: Sha256
    row_groups: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Rows of each."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.row_groups) != self.rows:
            raise ValueError(f"row groups of {self.key} have {sum(self.row_groups)} rows")
        return self


class ArchivePart(Record):
    """A part of the archive, such as one of CIFAR-10's batches: a range of row_id."""

    name: str
    first_row_id: int = Field(ge=0)
    rows: int = Field(ge=0)


class SplitManifest(Record):
    """One split: its files in stored order."""

    rows: int = Field(ge=1)
    files: tuple[FileManifest, ...] = Field(min_length=1)
    class_counts: tuple[Count, ...]
    """Rows of each class, in the order of `classes`."""
    archive_parts: tuple[ArchivePart, ...] = ()
    """In the archive's order; empty in what was prepared before they were listed."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not self.rows == sum(file.rows for file in self.files) == sum(self.class_counts):
            raise ValueError(f"files and classes do not add up to {self.rows} rows")
        first = 0
        for part in self.archive_parts:
            if part.first_row_id != first:
                raise ValueError(f"archive part {part.name} does not begin at row_id {first}")
            first += part.rows
        if self.archive_parts and first != self.rows:
            raise ValueError(f"archive parts do not add up to {self.rows} rows")
        return self


class SourceManifest(Record):
    """The archive that the dataset was made from."""

    sha256: Sha256
    name: str
    """The archive's file name, never its path."""
    complete: bool
    """Whether the dataset has every image that the archive contains or lists, and for one of the
    catalog's as many rows as published."""
    published: bool = False
    """Whether its bytes are those of the catalog's checksums."""
    crop: bool = False
    """Whether images were cropped to its boxes."""
    test_split: str = "test"
    """What it calls the split that became test."""
    missing_images: Count = 0
    """Images that it lists but does not contain."""
    skipped_images: Count = 0
    """Images of its train and test that were left out, for whatever reason."""
    converted_images: dict[str, Count] = Field(default_factory=dict)
    """Images of each format that were stored as PNG, without loss."""


class Manifest(Record):
    """`datasets/<name>/<digest12>/manifest.json`."""

    schema_version: Literal[1] = 1
    name: str
    title: str
    digest: Sha256
    ingest_version: int = Field(ge=1)
    shape: (
        tuple[
            Annotated[int, Field(ge=1, le=4096)],
            Annotated[int, Field(ge=1, le=4096)],
            Annotated[int, Field(ge=1, le=4)],
        ]
        | None
    )
    """Height, width, channels; None of encoded images, which become squares of RGB."""
    storage: Literal["fixed", "encoded"] = "fixed"
    """fixed: uint8 pixels, all images of one shape; encoded: JPEG or PNG, each of its size."""
    classes: tuple[str, ...] = Field(min_length=1)
    coarse_classes: tuple[str, ...] = ()
    fine_to_coarse: tuple[Count, ...] = ()
    splits: dict[str, SplitManifest]
    mean: tuple[float, ...]
    """Over all of train, per channel, of pixels scaled to 0 to 1.

    A job on some of the classes or rows uses these too, so that the same image gives the same
    input.
    """
    std: tuple[float, ...]
    source: SourceManifest
    left_out: tuple[LeftOut, ...] | None = None
    """What the source contains and the dataset does not; None if it was prepared before that was
    counted."""
    citation: str

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if set(self.splits) != {"train", "test"}:
            raise ValueError(f"splits are {sorted(self.splits)}, not train and test")
        if any(len(split.class_counts) != len(self.classes) for split in self.splits.values()):
            raise ValueError(f"class_counts are not {len(self.classes)} long")
        if (self.shape is None) != (self.storage == "encoded"):
            raise ValueError(f"storage {self.storage} does not go with shape {self.shape}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std are not {self.channels} long")
        if self.coarse_classes and (
            len(self.fine_to_coarse) != len(self.classes)
            or max(self.fine_to_coarse) >= len(self.coarse_classes)
        ):
            raise ValueError("fine_to_coarse does not give each class a coarse class")
        return self

    @property
    def train_parts(self) -> tuple[str, ...]:
        """Names of the archive's parts that train comes from, in order."""
        return tuple(part.name for part in self.splits["train"].archive_parts)

    @property
    def channels(self) -> int:
        """Of every image, once it is decoded."""
        return 3 if self.shape is None else self.shape[2]


def latest_digest(store: Store, name: str) -> str | None:
    """The digest in use, or None if the dataset was never prepared. Raises: DatasetError."""
    try:
        digest = store.read(latest_key(name)).decode("ascii", "replace").strip()
    except KeyMissingError:
        return None
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise DatasetError(
            f"{latest_key(name)} in {store.uri} contains no digest; run "
            f"`{prepare_command(store, name)}` again"
        )
    return digest


def load_manifest(store: Store, name: str, digest: str | None = None) -> Manifest:
    """The manifest of the digest in use, or of a given one (its first 12 digits do).

    Raises:
        DatasetError: no such dataset in the catalog or in the store, or its manifest is damaged.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        dataset_entry(name)  # raises, before such a name becomes part of a key
    wanted = digest or latest_digest(store, name)
    manifest = find_manifest(store, name, wanted) if wanted else None
    if manifest is None:
        dataset_entry(name)
        of = f" of digest {digest[:12]}" if digest else ""
        raise DatasetError(
            f"dataset {name}{of} is not in {store.uri}; run `{prepare_command(store, name)}`"
        )
    return manifest


def find_manifest(store: Store, name: str, digest: str) -> Manifest | None:
    """The manifest of this digest, None if there is none. Raises: DatasetError if damaged."""
    key = manifest_key(name, digest)
    try:
        content = store.read(key)
    except KeyMissingError:
        return None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DatasetError(
            f"{key} in {store.uri} is damaged or was written by another version of cifarray "
            f"({where[:80]!r}: {first['msg'][:120]!r}); run `{prepare_command(store, name)}` "
            "again"
        ) from error
    if manifest.name != name or not manifest.digest.startswith(digest):
        raise DatasetError(
            f"{key} in {store.uri} is the manifest of {manifest.name[:40]!r} "
            f"{manifest.digest[:12]}; run `{prepare_command(store, name)}` again"
        )
    return manifest


def repair_command(store: Store, manifest: Manifest) -> str:
    """The command that writes a damaged dataset again from its archive."""
    source = manifest.source
    options = " --crop" * source.crop
    if source.test_split != "test":
        options += f" --test-split {source.test_split}"
    options += " --skip-bad --accept-loss" * bool(source.skipped_images)
    return f"{prepare_command(store, manifest.name)}{options} --again"


def prepare_command(store: Store, name: str) -> str:
    """The command that prepares the dataset in this store."""
    endpoint = f" --endpoint {store.endpoint}" if store.endpoint else ""
    own = "" if name in DATASETS else " --layout LAYOUT --archive DIR"
    return f"cifarray data prepare {name}{own} --store {store.uri}{endpoint}"
