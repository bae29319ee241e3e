"""A driver that cannot do its work says why, records it, and ends with the right exit code."""

import subprocess
import sys
from dataclasses import replace

import pytest

from cifarray.driver.__main__ import main
from cifarray.runs import Run
from cifarray.runs.post_mortem import read_post_mortem
from tests.conftest import REPOSITORY
from tests.digit_sessions import Digits


def test_without_a_node_the_run_fails_in_one_sentence(run: Run):
    assert main([run.id, "--store", run.store.uri]) == 1
    status = run.status()
    assert (status.state, status.attempts) == ("failed", 1)
    assert status.error == "no Ray node is given; set RAY_ADDRESS, or use `cifarray submit`"
    log = run.store.read(run.key("attempts/1/driver.log")).decode()
    assert "Traceback" not in log


def test_a_run_that_has_closed_is_not_begun_again_by_whoever_submits_its_job_again(run: Run):
    for _ in range(2):
        assert main([run.id, "--store", run.store.uri]) == 1
        assert run.status().attempts == 1


def test_a_run_that_was_asked_for_anew_begins_its_next_attempt(run: Run):
    for attempts in (1, 2):
        run.change_status(lambda status: replace(status, state="pending"))
        assert main([run.id, "--store", run.store.uri]) == 1
        assert run.status().attempts == attempts
    assert run.attempt_numbers() == [1, 2]


def test_an_unknown_run_is_bad_input(digits: Digits, capsys: pytest.CaptureFixture[str]):
    assert main(["nowhere", "--store", digits.store.uri]) == 2
    assert capsys.readouterr().err.startswith("error: no run 'nowhere' in ")


def test_a_store_of_an_unknown_kind_is_bad_input(capsys: pytest.CaptureFixture[str]):
    assert main(["r", "--store", "ftp://host/path"]) == 2
    assert "cannot open a store of kind ftp://" in capsys.readouterr().err


def test_a_driver_needs_a_run_and_a_store(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["a-run"])
    assert ended.value.code == 2
    assert "--store" in capsys.readouterr().err


def test_a_failed_attempt_keeps_why(run: Run):
    command = [sys.executable, "-m", "cifarray.driver", run.id, "--store", run.store.uri]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert "a part of the post-mortem is missing" not in ended.stdout + ended.stderr
    kept = read_post_mortem(run, 1)
    assert kept is not None
    assert "; ".join(kept["cause"].values()) == run.status().error
    assert kept["attempt"] == 1
    assert kept["job"]["run_id"] == run.id
    assert kept["machine"]["cores"] >= 1 and kept["machine"]["memory_bytes"]["MemTotal"] > 0
    assert f"run {run.id}, attempt 1" in kept["driver"]["lines"]
    assert kept["versions"]["system"]
