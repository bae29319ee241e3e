"""What a file calls its fields is quoted in an error, and forges no line of its own."""

from pathlib import Path

import pytest

from cifarray.errors import CifarrayError, JobError
from cifarray.spec.load import load_job, load_profile

FORGED = "a\nerror: everything is fine\r"


@pytest.mark.parametrize("load", [load_job, load_profile])
def test_a_field_with_a_line_break_in_its_name_is_one_line(load: type, tmp_path: Path):
    (tmp_path / "given.yaml").write_text('kind: local\n"a\\nerror: everything is fine\\r": 1\n')
    with pytest.raises(JobError, match="unknown field") as caught:
        load(str(tmp_path / "given.yaml"))
    assert len(str(caught.value).splitlines()) == 1
    assert r"a\nerror: everything is fine\r" in str(caught.value)


def test_a_value_with_a_line_break_is_one_line():
    with pytest.raises(JobError) as caught:
        load_job("train-digits", [f"{FORGED}=1"])
    assert len(str(caught.value).splitlines()) == 1
    assert str(CifarrayError("plain")) == "plain"
