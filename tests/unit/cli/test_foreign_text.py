"""What others wrote forges no line, steers no terminal, and stays readable."""

import json
import random
import unicodedata

import pytest

from cifarray.cli import output
from cifarray.cli.foreign_text import RESET, in_json, lines, log, one_line

BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
LINK = "\x1b]8;;http://evil.example\x1b\\report\x1b]8;;\x1b\\"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x00b\x07c\x7f", "abc"),
        ("title\x1b]0;x\x07 stays", "title stays"),
        ("title\x1b]0;never closed", "title"),
        (LINK, "report"),
        ("\x1bPq#0\x1b\\picture", "picture"),
        ("up\x1b[1A\x1b[2K\x1b7\x1b(0\x1bc", "up"),
        ("\x9b2Jcleared\x9d0;title\x9c", "cleared"),
        ("a\nrun  forged", "a run  forged"),
        ("tab\tand", "tab and"),
        ("a\ud800b", "ab"),
        ("ünïcode 日本 🙂", "ünïcode 日本 🙂"),
    ],
)
def test_a_line_is_one_line_and_steers_no_terminal(text: str, kept: str) -> None:
    assert one_line(text) == kept


@pytest.mark.parametrize("mark", BIDIRECTIONAL)
def test_no_bidirectional_mark_turns_words_around(mark: str) -> None:
    assert one_line(f"a{mark}b") == lines(f"a{mark}b") == log(f"a{mark}b") == "ab"


@pytest.mark.parametrize("end", LINE_ENDS)
def test_whatever_ends_a_line_becomes_a_blank(end: str) -> None:
    assert one_line(f"a{end}b") == "a b"


def test_a_log_keeps_lines_and_colors_and_no_other_sequence() -> None:
    text = (
        f"\x1b[01;31mred\x1b[0m\tplain\r\nnext {LINK}\x1b[2J\x1b[8mhidden\x1b[5mblinks\x1b]0;t\x07"
    )
    kept = "\x1b[01;31mred\x1b[0m\tplain\nnext reporthiddenblinks"
    assert log(text) == kept
    assert log("\x1b[31mred") == f"\x1b[31mred{RESET}"
    assert lines(text) == "red\tplain\nnext reporthiddenblinks"


def test_random_text_never_leaves_a_sequence_a_second_line_or_an_unseen_character() -> None:
    random_text = random.Random(7)
    alphabet = "\x1b[]0;8m\x07\\\x9b\x9dPab 1?" + BIDIRECTIONAL + LINE_ENDS
    for _ in range(2000):
        text = "".join(random_text.choices(alphabet, k=30))
        assert all(unicodedata.category(each) not in ("Cc", "Cf") for each in one_line(text))
        assert len(one_line(text).splitlines()) <= 1
        left = log(text)
        assert "\x1b" not in lines(left), "what looks like a color is one"
        assert not set(left) & (set(BIDIRECTIONAL + LINE_ENDS) - {"\n"})


def test_json_is_valid_and_holds_no_raw_unseen_character(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "".join(map(chr, range(0xA0))) + BIDIRECTIONAL + LINE_ENDS + "\U000e0041\ud800é🙂"
    output.print_json({text: [text]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {text: [text]}
    unseen = {each for each in printed if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp")}
    assert unseen == {"\n"} and "é🙂" in printed
    assert in_json('"\u202e"') == '"\\u202e"'


def test_lines_tables_remarks_and_progress_are_filtered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    forged = "name\nrun-2  finished\x1b[1A\u202e"
    output.set_level(output.NORMAL)
    output.print_line(forged)
    output.say(forged)
    output.warn(forged)
    output.print_table(("job", "state"), [(forged, "lost")])
    with output.progress(forged, 10) as advance:
        advance(10)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 and len(err.splitlines()) == 4
    assert not {"\x1b", "\u202e"} & set(out + err)
