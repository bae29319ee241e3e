"""The keys that a store accepts: relative, '/'-separated, and never outside its root."""

import json
from typing import Any

from cifarray.errors import StoreRefusedError
from cifarray.store.layout import INDEX_NAMES, RESERVED


def is_key(key: str) -> bool:
    """Whether `key` names an object below a store's root on every kind of store."""
    return (
        bool(key)
        and len(key.encode("utf-8", "replace")) <= 900
        and "\\" not in key
        and key.isprintable()
        and all(_is_segment(segment) for segment in key.split("/"))
    )


def _is_segment(segment: str) -> bool:
    return (
        segment not in ("", ".", "..")
        and not segment.startswith(RESERVED)
        and len(segment.encode("utf-8", "replace")) <= 255
    )


def checked_key(key: str) -> str:
    """`key` itself. Raises: StoreError if a store could not hold it or it would leave the root."""
    if not is_key(key):
        raise StoreRefusedError(
            f"refused the key {key!r}; a key is relative, '/'-separated and printable, "
            f"without '..', '\\' or empty parts"
        )
    return key


def checked_prefix(prefix: str) -> str:
    """`prefix` without a trailing slash; '' is the root. Raises: StoreError as for a key."""
    return checked_key(prefix.removesuffix("/")) if prefix else ""


def joined(prefix: str, name: str) -> str:
    """`prefix/name`, or `name` at the root."""
    return f"{prefix}/{name}" if prefix else name


def index_last(keys: list[str]) -> list[str]:
    """The same keys with those that make a folder valid at the end."""
    return sorted(keys, key=lambda key: (is_index(key), key))


def is_index(key: str) -> bool:
    """Whether this object makes its folder valid."""
    return key.rpartition("/")[2] in INDEX_NAMES


def to_json(value: Any) -> bytes:
    """`value` as JSON that every reader takes: NaN and infinities become null."""
    return json.dumps(without_nan(value), indent=2, allow_nan=False).encode() + b"\n"


def without_nan(value: Any) -> Any:
    """The same value with null for NaN and infinities, which JSON does not know."""
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value
