"""The report's page in a real browser: no errors, nothing asked of the network, and it answers."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cifarray.report.build import write_report
from cifarray.report.inputs import ReportInputs
from tests import report_samples

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@dataclass(frozen=True)
class Shown:
    """What a browser made of a page."""

    document: str
    complaints: list[str]
    """Errors and warnings of its console, blocked requests among them."""


Show = Callable[[Path], Shown]


@pytest.fixture(scope="session")
def show(tmp_path_factory: pytest.TempPathFactory) -> Show:
    """Open a page in headless Chromium, without a network, and let its script run."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium here")
    profile = tmp_path_factory.mktemp("profile")

    def run(page: Path) -> Shown:
        ended = subprocess.run(
            [
                found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--disable-extensions",
                "--window-size=1280,900", "--virtual-time-budget=5000", "--enable-logging=stderr",
                f"--user-data-dir={profile}", "--dump-dom", page.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        complaints = [line for line in ended.stderr.splitlines() if ":CONSOLE" in line]
        return Shown(ended.stdout, complaints)

    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of each kind of report."""
    names = [HOSTILE, *"123456789"]
    kinds: dict[str, ReportInputs] = {
        "ten classes": report_samples.inputs(names=names),
        "one epoch": report_samples.inputs(epochs=1),
        "sweep over 100 classes": report_samples.sweep_inputs(
            num_classes=100, rows=2000, superclasses=20, error_rate=0.4
        ),
    }
    written = {}
    for kind, inputs in kinds.items():
        folder = tmp_path_factory.mktemp("report")
        write_report(folder, inputs)
        written[kind] = folder / "report.html"
    return written


@pytest.mark.parametrize("kind", ["ten classes", "one epoch", "sweep over 100 classes"])
def test_a_page_opens_without_console_errors_and_its_script_runs(
    show: Show, pages: dict[str, Path], kind: str
):
    shown = show(pages[kind])
    assert shown.complaints == []
    assert 'data-ready="yes"' in shown.document
    assert "cifarray report</title>" in shown.document


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("<script>console.error('broken')</script>", "Content Security Policy"),
        ('<img src="https://example.org/picture.png">', "Content Security Policy"),
        ('<p onclick="x" style="background: url(https://example.org/y.png)">', "Security Policy"),
    ],
)
def test_a_page_with_anything_foreign_in_it_is_caught(
    show: Show, pages: dict[str, Path], tmp_path: Path, wrong: str, complaint: str
):
    page = tmp_path / "wrong.html"
    text = pages["ten classes"].read_text(encoding="utf-8")
    page.write_text(text.replace("<main>", f"<main>{wrong}"), encoding="utf-8")
    assert any(complaint in line for line in show(page).complaints)


def test_a_script_that_throws_is_caught(show: Show, pages: dict[str, Path], tmp_path: Path):
    assert any(
        "broken" in line
        for line in _asked(show, pages["ten classes"], tmp_path, "broken()").complaints
    )


def test_tables_sort_by_the_column_that_is_clicked(
    show: Show, pages: dict[str, Path], tmp_path: Path
):
    answer = _answer(
        show, pages["sweep over 100 classes"], tmp_path,
        """
        const table = document.querySelector("#classes table");
        const heads = [...table.tHead.rows[0].cells];
        const recall = heads.find((cell) => cell.textContent === "recall");
        const read = () => [...table.tBodies[0].rows].map(
          (row) => +row.cells[recall.cellIndex].dataset.value);
        const orders = [];
        for (let click = 0; click < 2; click++) { recall.click(); orders.push(read()); }
        return orders;
        """,
    )  # fmt: skip
    down, up = answer
    assert len(down) == 100
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)


def test_pointing_at_a_cell_of_a_large_matrix_says_what_it_counts(
    show: Show, pages: dict[str, Path], tmp_path: Path
):
    answer = _answer(
        show, pages["sweep over 100 classes"], tmp_path,
        """
        const svg = document.querySelector("[data-matrix]");
        svg.scrollIntoView();
        const m = JSON.parse(svg.dataset.matrix);
        const [row, column, count] = m.counts.find(([row, column]) => row !== column);
        const at = new DOMPoint(m.left + (column + 0.5) * m.cell, m.top + (row + 0.5) * m.cell)
          .matrixTransform(svg.getScreenCTM());
        const where = {clientX: at.x, clientY: at.y, bubbles: true};
        svg.dispatchEvent(new PointerEvent("pointermove", where));
        return [document.getElementById("tip").textContent, m.names[row], m.names[column], count];
        """,
    )  # fmt: skip
    text, label, prediction, count = answer
    assert text.startswith(f"{label}\ntaken for {prediction}: {count} of 20 rows")


def test_pointing_at_a_trial_lights_it_up_in_every_figure_and_the_table(
    show: Show, pages: dict[str, Path], tmp_path: Path
):
    answer = _answer(
        show, pages["sweep over 100 classes"], tmp_path,
        """
        const row = document.querySelector("tr[data-trial='0']");
        row.dispatchEvent(new PointerEvent("pointermove", {bubbles: true}));
        const lit = [...document.querySelectorAll(".lit")];
        return [lit.length, lit.every((element) => element.dataset.trial === "0"),
                lit.filter((element) => element.closest("svg")).length];
        """,
    )  # fmt: skip
    lit, all_of_it, in_figures = answer
    assert all_of_it
    assert in_figures == lit - 1 >= 5


def _answer(show: Show, page: Path, folder: Path, question: str) -> Any:
    """Return what a piece of script finds on the page."""
    shown = _asked(show, page, folder, question)
    assert shown.complaints == []
    found = re.search(r'<output id="answer">(.*?)</output>', shown.document, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


def _asked(show: Show, page: Path, folder: Path, question: str) -> Shown:
    """Show a copy of the page that lets one more script run, at its end."""
    text = POLICY.sub("", page.read_text(encoding="utf-8"))
    script = f"""<output id="answer"></output><script>
    document.getElementById("answer").textContent = JSON.stringify((() => {{ {question} }})());
    </script></body>"""
    asked = folder / "asked.html"
    asked.write_text(text.replace("</body>", script), encoding="utf-8")
    return show(asked)
