"""YAML from a person or a store, refused where it stands for too much once its aliases are gone."""

import yaml
from yaml.composer import ComposerError

MOST_VALUES, MOST_LEVELS = 100_000, 100
"""That a document may hold once every alias is written out; a job holds about a hundred in six."""


class BoundedLoader(yaml.SafeLoader):
    """Measures a document before any of it is made into values."""

    def get_single_node(self) -> yaml.Node | None:
        """The document's root. Raises: YAMLError for a document without bounds."""
        root = super().get_single_node()
        if root is not None:
            _measure(root, {})
        return root


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
