"""pytest plugin: golden files, compared in every run and written only under --update-golden."""

import difflib
import json
import math
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).with_name("golden")


def differences(expected: Any, found: Any, rel: float, where: str = "") -> list[str]:
    """Name every place where two JSON values differ, floats by more than `rel`."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted({*expected, *found})
        return [
            line
            for key in keys
            for line in (
                differences(expected[key], found[key], rel, f"{where}.{key}")
                if key in expected and key in found
                else [f"{where}.{key}: only {'expected' if key in expected else 'found'}"]
            )
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, (e, f) in pairs for line in differences(e, f, rel, f"{where}[{i}]")]
    if isinstance(expected, float) and isinstance(found, float):
        same = math.isclose(expected, found, rel_tol=rel)
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [f"{where or 'value'}: expected {expected!r}, found {found!r}"]


class Golden:
    """The files below one folder that hold what earlier runs produced."""

    def __init__(self, folder: Path, update: bool) -> None:
        self._folder = folder
        self._update = update

    def check_text(self, name: str, found: str) -> None:
        """Fail unless the golden file `name` holds exactly this text."""
        path = self._expected(name, found)
        expected = path.read_text(encoding="utf-8")
        if expected != found:
            diff = difflib.unified_diff(
                expected.splitlines(), found.splitlines(), name, "found", lineterm=""
            )
            pytest.fail("\n".join([self._advice(name), *diff]), pytrace=False)

    def check_json(self, name: str, found: Any, rel: float = 0.0) -> None:
        """Fail unless the golden file `name` holds this value, each float within `rel` of it."""
        found = json.loads(json.dumps(found))
        path = self._expected(name, json.dumps(found, indent=2, sort_keys=True) + "\n")
        lines = differences(json.loads(path.read_text(encoding="utf-8")), found, rel)
        if lines:
            pytest.fail("\n".join([self._advice(name), *lines]), pytrace=False)

    def _expected(self, name: str, found: str) -> Path:
        path = self._folder / name
        if self._update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found, encoding="utf-8")
        elif not path.exists():
            pytest.fail(f"no golden file {name}; write it with --update-golden", pytrace=False)
        return path

    @staticmethod
    def _advice(name: str) -> str:
        return f"golden file {name} differs; if the change is meant: pytest --update-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-golden."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden from what this run produces",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The files in tests/golden, for `check_text(name, text)` and `check_json(name, value)`."""
    return Golden(FOLDER, update=bool(request.config.getoption("--update-golden")))
