"""`pull`, `delete` and `prune` as they are typed."""

import dataclasses
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.cli.main import main
from cifarray.runs import Run, list_runs
from cifarray.store import Store
from tests.holding_proxy import Fault, holding_proxy
from tests.s3 import S3Server
from tests.unit.runs.conftest import add_checkpoint, fill, run_spec, write_report

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cifarray(capsys: pytest.CaptureFixture[str]) -> Command:
    """Types a command; its exit code, output and remarks."""

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return typed


@pytest.fixture
def home(cifarray_home: Path) -> Store:
    """The store that the environment names."""
    return Store.open(str(cifarray_home / "store"))


def _finished(store: Store, run_id: str, days_ago: float = 0, top1: float = 0.9) -> Run:
    run = Run.create(store, run_spec(run_id))
    attempt = run.start_attempt("a driver")
    fill(attempt)
    write_report(run)
    attempt.close("finished")
    at = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
    best = {"metric": "validation.top1", "value": top1, "epoch": 1}
    run.change_status(lambda status: dataclasses.replace(status, ended_at=at, best=best))
    return run


def test_pull_fills_a_folder_of_the_runs_name_and_says_where_things_are(
    home: Store, cifarray: Command
) -> None:
    run = _finished(home, "digits-261123-100000-abcd")
    code, out, err = cifarray("pull", "digits-26")
    assert code == 0
    assert f"run {run.id} is in {run.id}" in out
    page = re.search(r"report +(\S+)", out)
    best = re.search(r"best checkpoint +(\S+)", out)
    assert page and Path(page.group(1)).read_text() == "<html></html>"
    assert best and (Path(best.group(1)) / "state.pt").is_file()
    assert f"pulling {run.id}" in err


def test_pull_takes_a_folder_and_prints_json(
    home: Store, cifarray: Command, tmp_path: Path
) -> None:
    run = _finished(home, "digits-261123-100000-abcd")
    target = tmp_path / "deep" / "folder"
    code, out, err = cifarray("pull", run.id, str(target), "--json", "--quiet")
    pulled = json.loads(out)
    assert (code, err) == (0, "")
    assert pulled["run_id"] == run.id
    assert pulled["report"] == str(target / "report" / "report.html")
    assert set(pulled["checkpoints"]) == {"best", "last"}
    assert pulled["problems"] == []
    assert pulled["fetched_bytes"] > 0


def test_pull_of_a_damaged_run_fails_and_names_the_file(home: Store, cifarray: Command) -> None:
    run = _finished(home, "digits-261123-100000-abcd")
    home.write(run.key("report", "report.html"), b"<html>!</html>")
    code, out, err = cifarray("pull", run.id)
    assert code == 1
    assert "report/report.html" in err
    assert "error: run" in err
    assert "best checkpoint" in out
    assert "report.html" not in out


def test_pull_of_an_unknown_run_and_into_a_foreign_folder_are_refused(
    home: Store, cifarray: Command, tmp_path: Path
) -> None:
    code, _, err = cifarray("pull", "nothing")
    assert (code, err.count("\n")) == (2, 1)
    assert "contains no runs" in err
    run = _finished(home, "digits-261123-100000-abcd")
    (tmp_path / "mine").write_text("my own")
    code, _, err = cifarray("pull", run.id, str(tmp_path))
    assert code == 2
    assert "contains something other than run" in err


def test_a_store_that_cannot_be_reached_is_one_sentence(s3: S3Server, cifarray: Command) -> None:
    for command in (["pull", "x"], ["delete", "x"], ["prune"]):
        code, out, err = cifarray(*command, "--store", "s3://no-such-bucket/p")
        assert (code, out) == (1, "")
        assert err.startswith("error: no bucket 'no-such-bucket'")
        assert err.count("\n") == 1


def test_delete_removes_the_runs_that_are_named(home: Store, cifarray: Command) -> None:
    ids = [f"digits-261123-10000{n}-abcd" for n in range(3)]
    for run_id in ids:
        _finished(home, run_id)
    code, out, _ = cifarray("delete", ids[0], ids[1], ids[0], "--yes")
    assert code == 0
    assert ids[0] in out and ids[1] in out
    assert "deleted 2 runs" in out
    assert [run.id for run in list_runs(home)] == [ids[2]]
    code, out, _ = cifarray("delete", ids[2], "--yes", "--json")
    assert json.loads(out)["deleted"] == [ids[2]]
    assert list_runs(home) == []


def test_delete_asks_first_and_does_nothing_where_nobody_can_answer(
    home: Store, cifarray: Command
) -> None:
    run = _finished(home, "digits-261123-100000-abcd")
    code, _, err = cifarray("delete", run.id)
    assert code == 2
    assert "--yes" in err
    assert run.has_report()


@pytest.mark.parametrize("answer", ["n", "y"])
def test_delete_does_what_a_person_at_a_terminal_answers(home: Store, answer: str) -> None:
    run = _finished(home, "digits-261123-100000-abcd")
    leader, follower = pty.openpty()
    typed = subprocess.Popen(
        [sys.executable, "-c", "from cifarray.cli.main import main; main()", "delete", run.id],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    os.close(follower)
    asked = b""
    while b"?" not in asked:
        asked += os.read(leader, 1000)
    os.write(leader, f"{answer}\n".encode())
    typed.communicate(timeout=30)
    os.close(leader)
    assert f"delete 1 run in {home.uri}?" in asked.decode()
    assert typed.returncode == 0
    assert bool(list_runs(home)) == (answer == "n")


def test_delete_refuses_a_live_run_and_then_deletes_none(home: Store, cifarray: Command) -> None:
    over = _finished(home, "digits-261123-100000-abcd")
    live = Run.create(home, run_spec("live-261123-100000-abcd"))
    with live.start_attempt("a driver", heartbeat_s=0.2).keep_alive():
        code, _, err = cifarray("delete", over.id, live.id, "--yes")
    assert code == 2
    assert f"run {live.id} is running; stop it first with `cifarray stop {live.id}`" in err
    assert len(list_runs(home)) == 2
    code, _, err = cifarray("delete", "unknown", "--yes")
    assert code == 2
    assert "no run 'unknown'" in err


def test_prune_shows_and_deletes_what_is_old_and_not_best(home: Store, cifarray: Command) -> None:
    old_best = _finished(home, "digits-261101-100000-0000", days_ago=9, top1=0.99)
    old = _finished(home, "digits-261101-100000-0001", days_ago=9, top1=0.5)
    young = _finished(home, "digits-261101-100000-0002", days_ago=1, top1=0.4)
    limits = ("--older-than", "7d", "--keep-best", "1")
    code, out, _ = cifarray("prune", *limits, "--dry-run")
    assert code == 0
    assert old.id in out
    assert old_best.id not in out and young.id not in out
    assert len(list_runs(home)) == 3
    code, out, _ = cifarray("prune", *limits, "--yes", "--json")
    assert json.loads(out)["deleted"] == [old.id]
    assert [run.id for run in list_runs(home)] == [young.id, old_best.id]
    code, out, _ = cifarray("prune", *limits)
    assert (code, "nothing to prune" in out) == (0, True)


def test_prune_without_limits_takes_unused_datasets_alone(home: Store, cifarray: Command) -> None:
    run = _finished(home, "digits-261101-100000-0000", days_ago=1000)
    home.write("datasets/digits/aaaaaaaaaaaa/manifest.json", b"{}")
    home.write("datasets/digits/LATEST", b"c" * 64)
    code, out, _ = cifarray("prune", "--yes")
    assert code == 0
    assert "datasets/digits/aaaaaaaaaaaa" in out
    assert "deleted 1 of 1" in out
    assert home.folders("datasets/digits") == []
    assert [each.id for each in list_runs(home)] == [run.id]
    _, out, _ = cifarray("prune")
    assert "--older-than" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--older-than", "soon"], "--older-than 'soon' is not an age"),
        (["--older-than", "7"], "min, h, d or w, as in 7d"),
        (["--older-than", "-7d"], "--older-than '-7d' is not an age"),
        (["--keep-best", "-1"], "--keep-best"),
        (["--keep-best", "few"], "--keep-best"),
    ],
)
def test_prune_says_which_limits_it_takes(
    home: Store, cifarray: Command, words: list[str], said: str
) -> None:
    run = _finished(home, "digits-261101-100000-0000", days_ago=1000)
    code, _, err = cifarray("prune", *words, "--yes")
    assert code == 2
    assert said in err
    assert run.has_report()


def test_a_checkpoint_of_a_running_run_can_be_pulled(home: Store, cifarray: Command) -> None:
    run = Run.create(home, run_spec("live-261123-100000-abcd"))
    attempt = run.start_attempt("a driver")
    add_checkpoint(home, f"{attempt.prefix}/checkpoints/r/epoch_1", 1, 0.5)
    code, out, _ = cifarray("pull", run.id)
    assert code == 0
    assert "best checkpoint" in out
    assert "report" not in out


@pytest.mark.parametrize("words", [("prune", "--older-than", "1d", "--yes"), ("delete", "--yes")])
def test_a_store_that_refuses_to_delete_is_an_error_and_no_remark(
    s3: S3Server, cifarray: Command, words: tuple[str, ...]
) -> None:
    """A read-only store: `prune` once took its refusal for a run that somebody works on."""
    kept = s3.new_store()
    run = _finished(kept, "digits-261123-100000-abcd", days_ago=9)
    named = [words[0], run.id, *words[1:]] if words[0] == "delete" else list(words)
    denied = Fault("answer", 403, "AccessDenied")
    with holding_proxy(s3.endpoint) as proxy:
        proxy.fault = lambda asked: denied if asked.deletes or asked.method == "PUT" else None
        code, _, err = cifarray(*named, "--store", kept.uri, "--endpoint", proxy.address)
    assert code == 1
    assert "does not let these credentials" in err
    assert [each.id for each in list_runs(kept)] == [run.id]
