"""Each part of Ray enters through one file, and asking for help loads nothing heavy."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "cifarray"
ONLY_IMPORTER = {
    "ray.data": "data/ray_dataset.py",
    "ray.train": "training/ray_train.py",
    "ray.tune": "training/ray_tune.py",
    "ray.util.metrics": "monitoring/ray_metrics.py",
}
HEAVY = {"torch", "ray", "pandas", "pyarrow", "boto3", "sklearn", "matplotlib", "kubernetes"}
RUN_AND_LIST_MODULES = """
import json, sys
from cifarray.cli.main import main
try:
    ended = main()
except SystemExit as exit:
    ended = exit.code
print()
print(json.dumps({"code": ended or 0, "modules": sorted(sys.modules)}))
"""


def imported_names(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("part", "importer"), ONLY_IMPORTER.items())
def test_each_part_of_ray_has_one_importer(part: str, importer: str) -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(f"{name}.".startswith(f"{part}.") for name in imported_names(path))
    }
    assert importers == {importer}


def test_an_import_inside_a_function_counts(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("def f():\n    from ray import tune\n    import ray.data.context\n")
    assert list(imported_names(file)) == ["ray.tune", "ray.data.context"]


def modules_of(*arguments: str) -> set[str]:
    """Run a command in a process of its own and return the modules that it loaded."""
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["code"] == 0, ended.stderr
    return set(result["modules"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["submit", "--help"],
        ["data", "--help"],
        ["cluster", "--help"],
        ["cluster", "render"],
        ["jobs"],
    ],
)
def test_help_and_job_names_load_nothing_heavy(arguments: list[str]) -> None:
    assert not modules_of(*arguments) & HEAVY


def test_a_job_is_checked_without_torch_and_ray() -> None:
    assert not modules_of("submit", "tune-digits", "--dry-run") & {"torch", "ray"}
