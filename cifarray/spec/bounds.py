"""Reads JSON and YAML from a person or a store within limits.

A few bytes can stand for more than memory holds (aliases, shared parts), or for more levels than a
parser's stack has.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

MOST_VALUES, MOST_LEVELS = 100_000, 100
"""Of a document that a person writes; a job has about a hundred values in six levels."""
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
                raise ValueError(f"it expands to more than {most} values")
        measured[id(value)] = count, level
    return count


def _parts(value: Any) -> Iterable[Any] | None:
    if isinstance(value, Mapping):
        return (part for pair in value.items() for part in pair)
    return value if isinstance(value, list | tuple | set | frozenset) else None


class BoundedLoader(yaml.SafeLoader):
    """Measures a document before any of it is made into values."""

    def get_single_node(self) -> yaml.Node | None:
        """The document's root. Raises: YAMLError for a document without bounds."""
        root = super().get_single_node()
        if root is not None:
            _measure_node(root, {})
        return root

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number. Raises: YAMLError for one that Python would not even write out."""
        value = int(super().construct_yaml_int(node))
        if abs(value) >= MOST_INTEGER:
            raise ConstructorError(None, None, "a number has too many digits", node.start_mark)
        return value


BoundedLoader.add_constructor("tag:yaml.org,2002:int", BoundedLoader.construct_yaml_int)


def parse_yaml(content: str | bytes, loader: type[BoundedLoader] = BoundedLoader) -> Any:
    """The value of a YAML text. Raises: ValueError, in one line, for what is none or too much."""
    if len(content) > MOST_YAML_CHARACTERS:
        raise ValueError(f"it is too long: at most {MOST_YAML_CHARACTERS} characters are read")
    try:
        return yaml.load(content, loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (
        Exception
    ) as error:  # errors that PyYAML's constructors do not catch, as for `!!timestamp x`
        raise ValueError(" ".join(str(error).split())) from error


def _measure_node(node: yaml.Node, measured: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, and in how many levels; (0, 0) while inside it."""
    known = measured.get(id(node))
    if known is not None:
        if known == (0, 0):
            raise _refused("an alias contains itself", node)
        return known
    measured[id(node)] = 0, 0
    inner = [_measure_node(child, measured) for child in _children(node)]
    values = 1 + sum(count for count, _ in inner)
    levels = 1 + max((depth for _, depth in inner), default=0)
    if values > MOST_VALUES:
        raise _refused(f"it expands to more than {MOST_VALUES} values; use fewer aliases", node)
    if levels > MOST_LEVELS:
        raise _refused(f"it is nested more than {MOST_LEVELS} levels deep", node)
    measured[id(node)] = values, levels
    return values, levels


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refused(problem: str, node: yaml.Node) -> ComposerError:
    return ComposerError(None, None, problem, node.start_mark)
