"""The environment of a process belongs to its start: no library call changes it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cifarray

PACKAGE = Path(cifarray.__file__).parent
STARTS = {
    "cli/main.py": "the command's own process",
    "proxies.py": "`spare_loopback`, which commands, drivers and workers call first",
    "user_folders.py": "`provide_home`, likewise",
    "cli/submit.py": "`cifarray run` makes the command's process the driver of a run",
    "training/distributed.py": "a worker's process, in which torch and gloo read it",
    "training/ray_tune.py": "the driver's process, in which Ray Tune reads its settings",
}
"""Modules that may change the environment, and why."""
CHANGES = {"update", "setdefault", "pop", "clear", "popitem"}


def writes(source: str) -> Iterator[str]:
    """Every expression by which a module changes os.environ."""
    for node in ast.walk(ast.parse(source)):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = list(node.targets)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            inner = target.value if isinstance(target, ast.Subscript) else target
            if ast.unparse(inner) in ("os.environ", "environ"):
                yield ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            if owner in ("os.environ", "environ") and name in CHANGES:
                yield ast.unparse(node)
            if owner == "os" and name in ("putenv", "unsetenv"):
                yield ast.unparse(node)


def test_only_a_processs_own_start_changes_its_environment() -> None:
    found = {
        str(path.relative_to(PACKAGE)): changes
        for path in PACKAGE.rglob("*.py")
        if (changes := list(writes(path.read_text(encoding="utf-8"))))
    }
    assert found.keys() == STARTS.keys(), found


@pytest.mark.parametrize(
    "change",
    [
        "os.environ['A'] = 'b'",
        "os.environ |= {'A': 'b'}",
        "os.environ.setdefault('A', 'b')",
        "os.environ.pop('A', None)",
        "del os.environ['A']",
        "os.putenv('A', 'b')",
    ],
)
def test_every_form_of_a_change_is_seen(change: str) -> None:
    assert list(writes(f"import os\n{change}\n")) == [change]
    assert not list(writes("import os\nfound = os.environ.get('A') or os.environ['B']\n"))
