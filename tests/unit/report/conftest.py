"""Reports that are written once and read by many tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cifarray.report.build import write_report
from cifarray.report.inputs import ReportInputs
from tests import report_samples

HOSTILE = '<script>alert("x")</script>'


@dataclass(frozen=True)
class Written:
    """A report on disk."""

    folder: Path
    content: dict[str, Any]
    inputs: ReportInputs

    @property
    def page(self) -> str:
        """The page's text."""
        return (self.folder / "report.html").read_text(encoding="utf-8")


def write(factory: pytest.TempPathFactory, inputs: ReportInputs) -> Written:
    folder = factory.mktemp("report")
    return Written(folder, write_report(folder, inputs), inputs)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of a training run with ten classes."""
    return write(tmp_path_factory, report_samples.inputs())


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of a sweep with finished, stopped and failed trials, over 100 classes in 20 superclasses."""
    inputs = report_samples.sweep_inputs(
        num_classes=100, rows=2000, superclasses=20, error_rate=0.4
    )
    return write(tmp_path_factory, inputs)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of a sweep in which every text that people choose tries to get out of its place."""
    names = [HOSTILE, "a $x^2$ & \"b\" 'c'", "=1+1", "\x00\x1b[31m", "\u202eevil", "名前", *"6789"]
    inputs = report_samples.sweep_inputs(num_trials=7, names=names)
    for trial in inputs.trials or ():
        trial["id"] += HOSTILE
        trial["error"] = HOSTILE if trial["error"] else None
    inputs.spec.versions["torch"] = HOSTILE
    return write(tmp_path_factory, inputs)
