"""Golden files fail when they are wrong, and only --update-golden writes them."""

from pathlib import Path

import pytest

from tests.golden_files import Golden, differences


def test_a_wrong_golden_text_fails_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("lr: 0.1\n")
    with pytest.raises(
        pytest.fail.Exception, match=r"(?s)job\.yaml differs.*-lr: 0\.1.*\+lr: 0\.2"
    ):
        Golden(tmp_path, update=False).check_text("job.yaml", "lr: 0.2\n")
    assert (tmp_path / "job.yaml").read_text() == "lr: 0.1\n"


def test_a_wrong_golden_number_fails_and_names_the_place(tmp_path: Path) -> None:
    Golden(tmp_path, update=True).check_json("steps.json", {"loss": [2.0, 1.0]})
    golden = Golden(tmp_path, update=False)
    golden.check_json("steps.json", {"loss": [2.0, 1.00005]}, rel=1e-4)
    with pytest.raises(pytest.fail.Exception, match=r"\.loss\[1\]: expected 1\.0, found 1\.001"):
        golden.check_json("steps.json", {"loss": [2.0, 1.001]}, rel=1e-4)


def test_a_missing_golden_fails_with_the_way_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no golden file help\.txt.*--update-golden"):
        Golden(tmp_path, update=False).check_text("help.txt", "usage")
    assert not list(tmp_path.iterdir())
    Golden(tmp_path, update=True).check_text("help.txt", "usage")
    Golden(tmp_path, update=False).check_text("help.txt", "usage")


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"a": 1}, {}),
        ({}, {"a": 1}),
        ([1], [1, 2]),
        (1, "1"),
        (1, True),
        (None, 0),
        ({"a": [1]}, {"a": [2]}),
    ],
)
def test_values_that_differ_in_kind_or_length_are_different(
    expected: object, found: object
) -> None:
    assert differences(expected, found, rel=1.0)
