"""How much a document from a person or a store may hold, and JSON that is read within it.

A few bytes can stand for more than memory holds (aliases, shared parts), or for more levels than a
parser's stack has. YAML is read within the same bounds by `bounded_yaml`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

MOST_VALUES, MOST_LEVELS = 100_000, 100
"""Of a document that a person writes; a job holds about a hundred values in six levels."""
MOST_YAML_CHARACTERS = 1 << 18
"""Read in about five seconds; a job that lists a thousand classes has 30,000."""
MOST_INTEGER = 10**100
"""Python neither writes nor multiplies integers of any length; floats end at 1e308."""
MOST_JSON_BYTES = 16 << 20
"""Of a record; the report of 10,000 epochs has about five million."""


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises: ValueError for what is none, or is too large or deep."""
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"it is larger than {MOST_JSON_BYTES >> 20} MiB")
    try:
        value = json.loads(data, parse_int=_integer)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep") from error
    refuse_unbounded(value, MOST_JSON_BYTES)
    return value


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) >= MOST_INTEGER:
        raise ValueError(f"the number {digits[:20]}... has too many digits")
    return value


def refuse_unbounded(value: Any, most_values: int = MOST_VALUES) -> None:
    """Refuse plain containers that hold too much, counting what is shared as often as it occurs.

    Raises: ValueError, also for texts that no terminal and no file can take.
    """
    _measure(value, most_values, 1, {})


def _measure(value: Any, most: int, level: int, measured: dict[int, tuple[int, int]]) -> int:
    """How many values it stands for; `measured` keeps that of containers, by their identity."""
    if isinstance(value, str):
        value.encode()  # a lone surrogate is a ValueError
        return 1
    inner = _parts(value)
    if inner is None:
        return 1
    if level > MOST_LEVELS:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    count, deepest_seen_from = measured.get(id(value), (0, 0))
    if level > deepest_seen_from:
        count = 1
        for part in inner:
            count += _measure(part, most, level + 1, measured)
            if count > most:
                raise ValueError(f"it stands for more than {most} values")
        measured[id(value)] = count, level
    return count


def _parts(value: Any) -> Iterable[Any] | None:
    if isinstance(value, Mapping):
        return (part for pair in value.items() for part in pair)
    return value if isinstance(value, list | tuple | set | frozenset) else None
