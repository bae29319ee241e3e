"""pytest plugin: lists at the end what was skipped and how to get it; refuses new skips in CI."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ALLOWED_SKIPS = Path(__file__).with_name("skips.txt")


@dataclass(frozen=True)
class AllowedSkip:
    """A line of skips.txt: which tests may be skipped, why, and how to run them all the same."""

    tests: str
    reason: str
    remedy: str

    def covers(self, test: str, reason: str) -> bool:
        """Whether the patterns of this line match a skipped test and its reason."""
        return fnmatchcase(test, self.tests) and fnmatchcase(reason, self.reason)


def parse_allowed(text: str) -> list[AllowedSkip]:
    """Read `tests | reason | remedy` lines; blank lines and lines that open with # say nothing."""
    lines = [line.strip() for line in text.splitlines()]
    fields = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return [AllowedSkip(*(field.strip() for field in line)) for line in fields]


def describe_skips(
    skips: Sequence[tuple[str, str]], allowed: Sequence[AllowedSkip]
) -> tuple[list[str], list[str]]:
    """Return what to print, and the tests among `skips` (test, reason) that no line allows."""
    reports: list[str] = []
    unlisted: list[str] = []
    for test, reason in skips:
        remedy = next((line.remedy for line in allowed if line.covers(test, reason)), None)
        if remedy is None:
            unlisted.append(test)
        reports.append(f"{test}\n    why: {reason}\n    to run it: {remedy or 'not listed'}")
    return reports, unlisted


class SkipReport:
    """Collects the skips of one session."""

    def __init__(self, allowed: Sequence[AllowedSkip], in_ci: bool) -> None:
        self._allowed = allowed
        self._in_ci = in_ci
        self._skips: list[tuple[str, str]] = []
        self._slow = 0

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            where = report.longrepr
            reason = where[2] if isinstance(where, tuple) else str(where)
            self._skips.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._slow += sum(item.get_closest_marker("slow") is not None for item in items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        unlisted = describe_skips(self._skips, self._allowed)[1]
        if unlisted and self._in_ci and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield
        reports, unlisted = describe_skips(self._skips, self._allowed)
        if reports or self._slow:
            terminalreporter.section("what was skipped, and how to get it")
        for report in reports:
            terminalreporter.line(report)
        if self._slow:
            terminalreporter.line(
                f"tests marked slow: {self._slow}\n    to run them: make test-all"
            )
        if unlisted:
            consequence = "which fails in CI" if not self._in_ci else "so the suite fails"
            terminalreporter.line(
                f"{len(unlisted)} skipped without a line in tests/{ALLOWED_SKIPS.name}, "
                f"{consequence}: {', '.join(unlisted)}",
                red=True,
            )


def pytest_configure(config: pytest.Config) -> None:
    """Register the report, with the committed list."""
    in_ci = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
    allowed = parse_allowed(ALLOWED_SKIPS.read_text(encoding="utf-8"))
    config.pluginmanager.register(SkipReport(allowed, in_ci), "skip-report")
