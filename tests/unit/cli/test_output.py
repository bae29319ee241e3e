"""What goes to standard output, what to standard error, and what is kept from both."""

import json

import pytest

from cifarray.cli import output


@pytest.fixture(autouse=True)
def normal_level() -> None:
    output.set_level(output.NORMAL)


def test_remarks_go_to_standard_error_and_data_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.say("a remark")
    output.print_line("a line")
    assert capsys.readouterr() == ("a line\n", "a remark\n")


def test_quiet_silences_remarks_and_not_warnings_or_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.set_level(output.QUIET)
    output.say("a remark")
    output.warn("something")
    output.print_json({"a": 1})
    with output.progress("work", 10) as advance:
        advance(10)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert err == "warning: something\n"


def test_json_holds_null_where_a_figure_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"loss": float("nan"), "all": [float("inf"), -float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "loss": None,
        "all": [None, None, 1.5],
    }


def test_details_are_for_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    output.detail("one")
    output.set_level(output.VERBOSE)
    output.detail("two")
    assert capsys.readouterr().err == "two\n"


def test_a_table_aligns_numbers_to_the_right_and_shows_absent_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_table(("run", "size"), [("a", "1.5 kB"), ("bbbb", "12.0 MB"), ("c", None)])
    assert capsys.readouterr().out == "run      size\na      1.5 kB\nbbbb  12.0 MB\nc           -\n"
    output.print_table(("run", "size"), [])
    assert capsys.readouterr().out == "run  size\n"


def test_without_a_terminal_every_tenth_part_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("reading", 1000, "rows") as advance:
        for _ in range(100):
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading ..."
    assert lines[1:] == [f"reading: {part}00 of 1000 rows" for part in range(1, 11)]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5 s"), (-1, "0 s"), (300, "5 min"), (7300, "2 h"), (2e5, "2 d")]
)
def test_ages_take_the_largest_unit(seconds: float, shown: str) -> None:
    assert output.age(seconds) == shown
