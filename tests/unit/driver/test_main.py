"""The driver's command line, as a cluster calls it."""

from pathlib import Path

import pytest

from cifarray.driver.__main__ import main
from cifarray.spec.run import REQUEST_VARIABLE


@pytest.mark.parametrize("given", ["job: {", "run_id: a\nfield_of_a_newer_version: 1\n"])
def test_a_request_of_another_version_is_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
):
    monkeypatch.setenv(REQUEST_VARIABLE, given)
    assert main(["a-run", "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "in this image cannot read the submitted run" in said
    assert said.count("\n") == 1


def test_a_run_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["a-run", "--store", str(tmp_path)]) == 2
    assert "no run 'a-run'" in capsys.readouterr().err
