"""Which jobs are a run's own, and which runs were submitted from here."""

from pathlib import Path

import pytest

from cifarray.backends.kubernetes.rayjob import NAME_LENGTH, rayjob_name
from cifarray.backends.trust import (
    SUBMITTED_FILE,
    is_job_of,
    remember_context,
    remember_submission,
    submitted_context,
    submitted_spec,
)
from cifarray.runs import Run
from cifarray.store import Store
from cifarray.store.layout import SPEC_FILE
from tests.unit.runs.conftest import run_spec

LONG = "train-" + "a" * 50


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Store.open(str(tmp_path / "store")), run_spec("a-run"))


@pytest.mark.parametrize("job_id", ["a-run-1", "a-run-12", "a-run-3.2", "a-run-3.11"])
def test_submissions_of_a_run_are_its_jobs(job_id: str) -> None:
    assert is_job_of("a-run", job_id)


@pytest.mark.parametrize(
    "job_id",
    ["a-run", "a-run-", "a-run-0", "a-run-x", "b-run-1", "a-run-1-1", "a-run-1\n", 1, None],
)
def test_other_names_are_not(job_id: object) -> None:
    assert not is_job_of("a-run", job_id)


def test_a_name_that_had_to_be_cut_is_told_by_its_digest() -> None:
    job_id = rayjob_name(LONG, 3)
    assert len(job_id) <= NAME_LENGTH and is_job_of(LONG, job_id)
    assert not is_job_of(LONG + "b", job_id)
    assert not is_job_of(LONG, job_id[:-1] + ("0" if job_id[-1] != "0" else "1"))


def test_a_run_is_from_here_while_its_job_yaml_is_what_was_submitted(run: Run) -> None:
    assert submitted_spec(run) is None
    remember_submission(run.spec())
    assert submitted_spec(run) == run.spec()
    run.store.write(run.key(SPEC_FILE), run.store.read(run.key(SPEC_FILE)) + b"# changed\n")
    assert submitted_spec(run) is None


def test_the_last_context_of_a_run_counts(run: Run) -> None:
    remember_context("a-run", "first")
    remember_context("a-run", "second")
    remember_context("another-run", "third")
    assert submitted_context("a-run") == "second"


def test_a_damaged_line_of_the_list_counts_for_nothing(run: Run, cifarray_home: Path) -> None:
    remember_context("a-run", "first")
    with (cifarray_home / "state" / SUBMITTED_FILE).open("ab") as file:
        file.write(b'{"run_id": "a-\xff\n3\n')
    remember_submission(run.spec())
    assert submitted_spec(run) == run.spec() and submitted_context("a-run") == "first"


def test_without_a_folder_for_the_list_a_submission_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIFARRAY_STATE_DIR", str(tmp_path / "file" / "state"))
    remember_submission(run.spec())
    assert submitted_spec(run) is None
