"""report and compare as typed: what they print and write, and how bad input ends."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifarray.cli.main import main
from cifarray.report.build import FILES
from cifarray.runs import Run, check_index, write_index
from cifarray.spec.run import RunSpec
from cifarray.store import Store
from tests import report_samples
from tests.unit.report.conftest import Written

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run one command; its exit code, output and remarks."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def record(store: Store, written: Written, run_id: str | None = None, **changes: Any) -> Run:
    """Put a written report into a store as that of a run."""
    spec = written.inputs.spec
    spec = RunSpec.model_validate(spec.model_dump() | {"run_id": run_id or spec.run_id})
    run = Run.create(store, spec)
    for path in written.folder.iterdir():
        store.upload(path, run.key("report", path.name))
    store.write_json(
        run.key("report", "report.json"), written.content | {"run_id": run.id} | changes
    )
    write_index(store, run.key("report"))
    return run


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """An empty local store."""
    return Store.open(str(tmp_path / "store"))


def test_report_prints_the_figures_and_where_the_page_is(
    typed: Typed, local: Store, swept: Written
):
    run = record(local, swept)
    code, out, _ = typed("report", run.id, "--store", local.uri)
    test = swept.content["test"]
    assert code == 0
    assert f"top-1 {100 * test['top1']:.2f} %" in out
    assert f"superclass {100 * test['superclass_top1']:.2f} %" in out
    assert "20: 7 finished, 10 stopped early, 3 failed" in out
    page = out.splitlines()[-1].split()[1]
    assert Path(page).read_text(encoding="utf-8") == swept.page


def test_report_as_json_is_report_json(typed: Typed, store: Store, trained: Written):
    run = record(store, trained)
    options = ["--store", store.uri, "--json"]
    code, out, _ = typed("report", run.id, *options, *_endpoint(store))
    assert code == 0
    assert json.loads(out) == trained.content


def test_report_writes_its_files_where_it_is_told(
    typed: Typed, store: Store, trained: Written, tmp_path: Path
):
    run = record(store, trained)
    target = tmp_path / "here" / "it is"
    code, out, _ = typed(
        "report", run.id, "--output", target, "--store", store.uri, *_endpoint(store)
    )
    assert code == 0
    assert out.splitlines()[-1].endswith(str(target / "report.html"))
    assert {path.name for path in target.iterdir()} == {*FILES, "files.json"}
    assert (target / "report.html").read_bytes() == (trained.folder / "report.html").read_bytes()


def test_report_replaces_its_own_files_and_no_others(
    typed: Typed, local: Store, trained: Written, swept: Written, tmp_path: Path
):
    first, second = record(local, trained), record(local, swept)
    target = tmp_path / "here"
    for _ in range(2):
        assert typed("report", first.id, "-o", target, "--store", local.uri)[0] == 0
    kept = {path.name: path.read_bytes() for path in target.iterdir()}
    code, out, err = typed("report", second.id, "-o", target, "--store", local.uri)
    assert (code, out) == (2, "")
    assert (
        f"{target} already contains report.json, which is not from run {second.id}'s report" in err
    )
    assert {path.name: path.read_bytes() for path in target.iterdir()} == kept


def test_report_does_not_write_into_a_pulled_run(
    typed: Typed, local: Store, trained: Written, tmp_path: Path
):
    run, pulled = record(local, trained), tmp_path / "pulled"
    assert typed("pull", run.id, pulled, "--store", local.uri)[0] == 0
    code, _, err = typed("report", run.id, "-o", pulled, "--store", local.uri)
    assert code == 2
    assert f"{pulled} already contains files.json, which is not from" in err
    assert check_index(Store.open(str(pulled)), "") == []
    assert typed("report", run.id, "-o", pulled / "report", "--store", local.uri)[0] == 0


def test_report_goes_on_where_it_was_cut(
    typed: Typed, local: Store, trained: Written, tmp_path: Path
):
    run, target = record(local, trained), tmp_path / "here"
    target.mkdir()
    (target / "report.json").write_bytes(local.read(run.key("report", "report.json")))
    (target / "report.html").write_text("old")
    assert typed("report", run.id, "-o", target, "--store", local.uri)[0] == 0
    assert (target / "report.html").read_text(encoding="utf-8") == trained.page


def test_report_names_the_pages_address_in_a_bucket(typed: Typed, s3: Any, trained: Written):
    bucket = s3.new_store()
    run = record(bucket, trained)
    _, out, _ = typed("report", run.id, "--store", bucket.uri, *_endpoint(bucket))
    assert out.splitlines()[-1].split()[1] == f"{bucket.uri}/runs/{run.id}/report/report.html"


def test_report_open_hands_the_page_to_the_browser(
    typed: Typed, local: Store, trained: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    run = record(local, trained)
    code, _, _ = typed("report", run.id, "--open", "--store", local.uri)
    assert code == 0
    assert seen.read_text() == Path(local.path(run.key("report", "report.html"))).as_uri()


def test_report_of_a_run_that_has_not_ended_says_so(typed: Typed, local: Store):
    run = Run.create(local, report_samples.run_spec())
    code, out, err = typed("report", run.id, "--store", local.uri)
    assert (code, out) == (2, "")
    assert f"run {run.id} (pending) has no complete report" in err
    assert "cifarray status" in err


def test_report_of_an_unknown_run_names_its_neighbors(typed: Typed, local: Store, trained: Written):
    run = record(local, trained)
    code, _, err = typed("report", "train-digit", "--store", local.uri)
    assert code == 0
    code, _, err = typed("report", "trian-digits-260301-120000-3f1c", "--store", local.uri)
    assert code == 2
    assert run.id in err
    assert "Traceback" not in err


def test_a_report_with_other_bytes_than_listed_does_not_exist(
    typed: Typed, local: Store, trained: Written
):
    run = record(local, trained)
    page = Path(local.path(run.key("report", "report.html")))
    page.write_bytes(page.read_bytes()[:-1] + b"!")
    code, _, err = typed("report", run.id, "--store", local.uri)
    assert code == 2
    assert "report.html differs from what was written" in err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema_version": 99}, "has schema_version 99, but this cifarray reads 1"),
        ({"test": {"rows": 5}}, "test.top1 is None"),
        ({"world_size": True}, "world_size is True"),
        ({"trials": ["what"]}, "is damaged: id is None"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_sentence(
    typed: Typed, local: Store, trained: Written, changes: dict[str, Any], sentence: str
):
    run = record(local, trained, **changes)
    code, _, err = typed("report", run.id, "--store", local.uri)
    assert code == 1
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_compare_puts_two_runs_side_by_side(
    typed: Typed, local: Store, trained: Written, swept: Written
):
    runs = [record(local, trained), record(local, swept)]
    code, out, _ = typed("compare", *(run.id for run in runs), "--store", local.uri)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["run", runs[0].id, runs[1].id]
    assert any(line.startswith("optimizer.lr ") for line in lines)
    assert any(line.startswith("95 % interval") for line in lines)
    assert any(
        line.startswith("note: the runs were measured on different datasets") for line in lines
    )


def test_compare_sums_up_seeds_and_gives_many_runs_a_line_each(
    typed: Typed, local: Store, trained: Written
):
    ids = []
    for seed in range(5):
        job = trained.content["resolved_job"] | {"seed": seed}
        seeds = trained.content["seeds"] | {"job": seed}
        run_id = f"train-digits-260301-12000{seed}-3f1c"
        ids.append(record(local, trained, run_id, resolved_job=job, seeds=seeds).id)
    code, out, _ = typed("compare", *ids, "--store", local.uri)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:6]] == ids
    assert "over the seeds 0, 1, 2, 3, 4:" in out
    (line,) = (line for line in out.splitlines() if line.startswith("test.top1 "))
    top1 = f"{100 * trained.content['test']['top1']:.2f}"
    assert line.split() == ["test.top1", top1, "%", "0.00", "%", "5"]


def test_compare_as_json_has_runs_groups_and_notes(
    typed: Typed, local: Store, trained: Written, swept: Written
):
    runs = [record(local, trained), record(local, swept)]
    code, out, _ = typed("compare", *(run.id for run in runs), "--store", local.uri, "--json")
    assert code == 0
    assert set(json.loads(out)) == {"schema_version", "runs", "groups", "notes"}


def test_compare_refuses_one_run_alone_and_an_unknown_one(
    typed: Typed, local: Store, trained: Written
):
    run = record(local, trained)
    code, _, err = typed("compare", run.id, run.id, "--store", local.uri)
    assert code == 2
    assert f"compare requires at least two runs, but only {run.id} was given" in err
    code, _, err = typed("compare", run.id, "nothing-like-it", "--store", local.uri)
    assert code == 2
    assert "no run 'nothing-like-it'" in err


def test_reading_reports_loads_neither_torch_nor_ray_nor_matplotlib(
    local: Store, trained: Written, swept: Written
):
    ids = [record(local, written).id for written in (trained, swept)]
    program = (
        "import sys; from cifarray.cli.main import build_app; app = build_app()\n"
        "for words in sys.argv[1:]: app(words.split(), standalone_mode=False)\n"
        "print([name for name in ('torch', 'ray', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    words = [f"report {ids[0]}", f"compare {ids[0]} {ids[1]}"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | {"CIFARRAY_STORE": local.uri, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ids[1] in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def _endpoint(store: Store) -> list[str]:
    return ["--endpoint", store.endpoint] if store.endpoint else []
