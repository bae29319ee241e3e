"""metrics.jsonl: a record per epoch of an attempt or a trial."""

import json
from collections.abc import Iterable
from typing import Any

from cifarray.errors import KeyMissingError, StoreDamagedError
from cifarray.spec.bounds import parse_json
from cifarray.store import Store
from cifarray.store.keys import joined, without_nan
from cifarray.store.layout import METRICS_FILE


def read_metrics(store: Store, prefix: str) -> list[dict[str, Any]]:
    """The records of `prefix/metrics.jsonl`, one per epoch; a torn last line is left out."""
    key = joined(prefix, METRICS_FILE)
    try:
        lines = store.read(key).decode("utf-8", "replace").splitlines()
    except KeyMissingError:
        return []
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
            if not isinstance(record, dict):
                raise ValueError("not a record")
        except ValueError as error:
            if number == len(lines):
                break
            raise StoreDamagedError(f"{key} in {store.uri} is damaged in line {number}") from error
        records.append(record)
    return records


def write_metrics(store: Store, prefix: str, records: Iterable[dict[str, Any]]) -> None:
    """Write all records at once, one JSON object a line."""
    lines = (json.dumps(without_nan(record), allow_nan=False) + "\n" for record in records)
    store.write(joined(prefix, METRICS_FILE), "".join(lines).encode())
