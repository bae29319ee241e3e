"""The suite ends with what was skipped and how to get it; CI admits only the committed skips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skip_report import ALLOWED_SKIPS, AllowedSkip, parse_allowed

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = """
import pytest

def test_that_runs():
    assert True

@pytest.mark.skip(reason="{reason}")
def test_that_is_skipped():
    assert False

@pytest.mark.slow
def test_that_is_slow():
    assert True
"""


def run_suite(folder: Path, reason: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Run pytest, with the plugin alone, on a suite that skips one test for `reason`."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_suite.py").write_text(TESTS.format(reason=reason))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\n")
    (folder / "conftest.py").write_text("pytest_plugins = ['tests.skip_report']\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "tests"]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_skip_that_is_not_listed_fails_in_ci(tmp_path: Path) -> None:
    ended = run_suite(tmp_path, "it was tedious", ci="true")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "tests/test_suite.py::test_that_is_skipped\n    why: it was tedious" in ended.stdout
    assert "1 skipped without a line in tests/skips.txt, so the suite fails" in ended.stdout


def test_a_skip_that_is_not_listed_only_warns_elsewhere(tmp_path: Path) -> None:
    ended = run_suite(tmp_path, "it was tedious", ci="")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 skipped without a line in tests/skips.txt, which fails in CI" in ended.stdout


def test_a_listed_skip_passes_in_ci_and_tells_how_to_run_it(tmp_path: Path) -> None:
    ended = run_suite(tmp_path, "no chromium here", ci="true")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "to run it: apt-get install chromium" in ended.stdout
    assert "tests marked slow: 1\n    to run them: make test-all" in ended.stdout
    assert "1 passed, 1 skipped, 1 deselected" in ended.stdout.splitlines()[-1]


def test_every_line_of_the_committed_list_is_whole() -> None:
    allowed = parse_allowed(ALLOWED_SKIPS.read_text(encoding="utf-8"))
    assert allowed and all(line.tests and line.reason and line.remedy for line in allowed)


@pytest.mark.parametrize(
    ("test", "reason", "covered"),
    [
        ("tests/a.py::test_x", "no chromium here", True),
        ("tests/a.py::test_x", "no chromium here today", False),
        ("elsewhere/a.py::test_x", "no chromium here", False),
    ],
)
def test_a_line_covers_a_skip_by_its_name_and_its_reason(
    test: str, reason: str, covered: bool
) -> None:
    line = AllowedSkip("tests/*", "no chromium here", "apt-get install chromium")
    assert line.covers(test, reason) is covered


def test_every_line_of_the_committed_list_has_a_reason_that_a_test_gives() -> None:
    files = [*(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "scripts").glob("*.py")]
    files.remove(Path(__file__))
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    reasons = [line.reason for line in parse_allowed(ALLOWED_SKIPS.read_text(encoding="utf-8"))]
    assert [reason for reason in reasons if " ".join(reason.split()[:3]) not in source] == []


def test_ci_says_that_it_is_ci() -> None:
    assert "export CI=true" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
