"""Holds RayClusters and RayJobs against KubeRay's own schemas, with unknown fields refused."""

import copy
import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.unit.kubernetes.shipped import REPOSITORY

FILES = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
"""A resource definition leaves metadata to the API server; these are the fields that we write."""
LEFT_OPEN = {"type": "object"}


def schemas_folder() -> Path:
    """The folder of schemas; skips without one."""
    given = os.environ.get("CIFARRAY_TEST_SCHEMAS")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "schemas"
    if not folder.is_dir():
        pytest.skip(f"no schemas of KubeRay in {folder}")
    return folder


def problems(manifest: dict[str, Any]) -> list[str]:
    """What the schema of the manifest's kind says against it: where and what."""
    found = validator(manifest["kind"], schemas_folder()).iter_errors(manifest)
    return [f"{'.'.join(map(str, each.path))}: {each.message}" for each in found]


@cache
def validator(kind: str, folder: Path) -> Draft202012Validator:
    """What checks objects of a kind."""
    path = folder / f"{FILES[kind]}.v1.openapi.json.gz"
    schema = json.loads(gzip.decompress(path.read_bytes()))
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"]["const"] = "ray.io/v1"
    closed(schema)
    schema["properties"]["metadata"]["required"] = ["name", "namespace"]
    return Draft202012Validator(schema)


def closed(schema: Any) -> None:
    """Refuse, everywhere in a schema, what it does not list; it may keep what it says it keeps."""
    if isinstance(schema, list):
        for each in schema:
            closed(each)
    if not isinstance(schema, dict):
        return
    if schema.get("metadata") == LEFT_OPEN:
        schema["metadata"] = copy.deepcopy(METADATA)
    listed = isinstance(schema.get("properties"), dict) and "type" in schema
    if listed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    for each in schema.values():
        closed(each)
