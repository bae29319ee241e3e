"""The manifest: found by LATEST or by digest, refused where it cannot be what it says."""

import json
from typing import Any

import pytest

from cifarray.data.ingest import prepare
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.errors import DatasetError
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix, latest_key, manifest_key


def test_a_manifest_is_found_by_latest_digest_or_its_first_digits(digits_store: Store) -> None:
    manifest = load_manifest(digits_store, "digits")
    assert load_manifest(digits_store, "digits", manifest.digest) == manifest
    assert load_manifest(digits_store, "digits", manifest.digest[:12]) == manifest
    prefix = dataset_prefix("digits", manifest.digest)
    assert prefix == f"datasets/digits/{manifest.digest[:12]}"
    assert Manifest.model_validate(digits_store.read_json(f"{prefix}/manifest.json")) == manifest


def test_a_missing_dataset_names_the_command_that_brings_it(local_store: Store) -> None:
    command = f"cifarray data prepare digits --store {local_store.uri}"
    with pytest.raises(DatasetError, match=command):
        load_manifest(local_store, "digits")
    prepare(local_store, "digits")
    with pytest.raises(DatasetError, match=f"digits of digest 000000000000 is not in .*{command}"):
        load_manifest(local_store, "digits", "0" * 64)


@pytest.mark.parametrize("name", ["digit", "no/such", "..", ""])
def test_a_name_in_no_catalog_is_refused(name: str, local_store: Store) -> None:
    with pytest.raises(DatasetError, match="unknown dataset"):
        load_manifest(local_store, name)


@pytest.mark.parametrize("content", [b"", b"../../x", b"\xff" * 64, b"A" * 64])
def test_a_latest_that_names_no_digest_is_refused(content: bytes, digits_store: Store) -> None:
    digits_store.write(latest_key("digits"), content)
    with pytest.raises(DatasetError, match="contains no digest; run `cifarray data prepare digits"):
        load_manifest(digits_store, "digits")


WRONG: list[tuple[list[str | int], Any]] = [
    (["schema_version"], 2),
    (["digest"], "0" * 64),
    (["name"], "cifar10"),
    (["shape"], [8, 8]),
    (["shape"], [10**9, 8, 1]),
    (["mean"], [0.5, 0.5]),
    (["classes"], []),
    (["splits", "train", "rows"], 1436),
    (["splits", "train", "class_counts"], [1437]),
    (["splits", "train", "files", 0, "key"], "../../runs/x/train/part-00000.parquet"),
    (["splits", "train", "files", 0, "row_groups"], [1437, 1]),
    (["splits", "train", "files", 0, "sha256"], "no checksum"),
    (["splits", "test"], None),
    (["coarse_classes"], ["even", "odd"]),
    (["something"], "new"),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_manifest_that_contradicts_itself_is_refused(
    path: list[str | int], value: Any, digits_store: Store
) -> None:
    digest = load_manifest(digits_store, "digits").digest
    content = digits_store.read_json(manifest_key("digits", digest))
    *way, last = path
    place = content
    for part in way:
        place = place[part]
    place[last] = value
    digits_store.write(manifest_key("digits", digest), json.dumps(content).encode())
    with pytest.raises(DatasetError, match=r"run `cifarray data prepare digits --store .*` again"):
        load_manifest(digits_store, "digits")


def test_a_manifest_that_is_no_json_is_refused(digits_store: Store) -> None:
    digest = load_manifest(digits_store, "digits").digest
    digits_store.write(manifest_key("digits", digest), b"{")
    with pytest.raises(DatasetError, match="damaged or was written by another version"):
        load_manifest(digits_store, "digits")
