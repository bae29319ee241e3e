"""`make demo`, from its first command to the reports that it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cifarray.backends.local.node import find_node
from cifarray.store import Store

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the demo ran, with a state folder of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "CIFARRAY_STATE_DIR": str(folder / "state")}
    environment.pop("CIFARRAY_STORE", None)
    ended = subprocess.run(
        [sys.executable, DEMO], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder, ended.stdout


def report_of(folder: Path, job: str) -> dict[str, Any]:
    """The pulled report of the demo's run of a job."""
    (found,) = folder.glob(f"pulled/{job}-*/report/report.json")
    content: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return content


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demos_sweep_varies_what_it_should_and_stops_trials_early(
    demo: tuple[Path, str],
) -> None:
    trials = report_of(demo[0], "tune-digits")["trials"]
    assert len(trials) >= 8
    for field in ("optimizer.lr", "model.dropout", "optimizer.name"):
        assert len({trial["parameters"][field] for trial in trials}) > 1, field
    assert any(trial["state"] == "stopped early" for trial in trials)


@pytest.mark.slow
def test_the_demo_trains_two_workers_with_the_best_trial(demo: tuple[Path, str]) -> None:
    sweep, trained = (report_of(demo[0], job) for job in ("tune-digits", "train-digits"))
    (best,) = (t for t in sweep["trials"] if t["id"] == sweep["best_trial_id"])
    assert trained["world_size"] == 2
    assert trained["test"]["rows"] == 360
    assert trained["test"]["top1"] >= 0.95
    assert trained["resolved_job"]["optimizer"]["lr"] == best["parameters"]["optimizer.lr"]
    assert trained["best_of"]["run_id"] == sweep["run_id"]


@pytest.mark.slow
def test_the_demo_says_where_its_reports_are(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    pages = [line.strip() for line in printed.splitlines() if line.endswith("report.html")]
    assert len([page for page in pages if (folder / page).is_file()]) >= 2


@pytest.mark.slow
def test_the_demo_leaves_its_runs_in_the_default_store_and_no_node(
    demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = demo
    assert len(Store.open(str(folder / "store")).folders("runs")) == 2
    monkeypatch.setenv("CIFARRAY_STATE_DIR", str(folder / "state"))
    assert find_node() is None
