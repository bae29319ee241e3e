"""As much of PromQL as it takes to say which metrics and labels an expression names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
DURATION = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"(?<![\w.])([a-zA-Z_:][\w:]*)\s*(\(|\{([^}]*)\})?")
WORDS = {"and", "or", "unless", "bool", "by", "on", "without", "ignoring"}


@dataclass(frozen=True)
class Selector:
    """A metric in an expression, and the labels that it is chosen by."""

    name: str
    labels: tuple[str, ...]


def selectors(expression: str) -> Iterator[Selector]:
    """Every metric that an expression reads."""
    bare = GROUPING.sub("", DURATION.sub("", STRING.sub('""', expression)))
    for found in SELECTOR.finditer(bare):
        name, following, matchers = found.groups()
        if following != "(" and name not in WORDS:
            yield Selector(name, tuple(re.findall(r"(\w+)\s*[=!]", matchers or "")))


def grouping_labels(expression: str) -> set[str]:
    """Every label that an expression groups or matches by."""
    lists = (found.group(2) for found in GROUPING.finditer(STRING.sub('""', expression)))
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}
