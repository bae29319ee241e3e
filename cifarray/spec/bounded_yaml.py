"""YAML from a person or a store, refused where it stands for too much once its aliases are gone."""

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from cifarray.spec.bounds import MOST_INTEGER, MOST_LEVELS, MOST_VALUES, MOST_YAML_CHARACTERS


class BoundedLoader(yaml.SafeLoader):
    """Measures a document before any of it is made into values."""

    def get_single_node(self) -> yaml.Node | None:
        """The document's root. Raises: YAMLError for a document without bounds."""
        root = super().get_single_node()
        if root is not None:
            _measure(root, {})
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
    except Exception as error:  # what its constructors let through, as for `!!timestamp x`
        raise ValueError(" ".join(str(error).split())) from error


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, and in how many levels; (0, 0) while inside it."""
    known = measured.get(id(node))
    if known is not None:
        if known == (0, 0):
            raise _refused("an alias stands inside itself", node)
        return known
    measured[id(node)] = 0, 0
    inner = [_measure(child, measured) for child in _children(node)]
    values = 1 + sum(count for count, _ in inner)
    levels = 1 + max((depth for _, depth in inner), default=0)
    if values > MOST_VALUES:
        raise _refused(f"it stands for more than {MOST_VALUES} values; write fewer aliases", node)
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
