"""What cannot be read, written or is empty is refused in one sentence with exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from cifarray.store import Store
from tests.unit.cli.conftest import Type

CIFARRAY = Path(sys.executable).with_name("cifarray")
LONG = "a" * 300
TOO_LONG = "File name too long"
UNREADABLE = {
    "data prepare cifar10 --archive ~nosuchuser/x": "no archive at ~nosuchuser/x",
    f"data prepare cifar10 --archive {LONG}": TOO_LONG,
    "data prepare cifar10 --archive file/x": "no archive at file/x",
    f"data inspect digits --grid {LONG}/x.png": TOO_LONG,
    "data inspect digits --grid file/x.png": "--grid file/x.png is not the path of a .png file",
    f"submit {LONG}.yaml": TOO_LONG,
    "submit file/x.yaml": "no job file at file/x.yaml",
    f"submit train-digits --cluster {LONG}.yaml": TOO_LONG,
    f"submit train-digits --code {LONG}": TOO_LONG,
    f"predict {LONG} a.png": TOO_LONG,
    "predict file/x a.png": "no checkpoint at file/x",
    f"export {LONG} -o out": TOO_LONG,
    "data inspect digits --store \udcff": "a path that is not UTF-8",
    "runs --store file": "file is a file, not a store",
    "status x --store file": "file is a file, not a store",
    "data inspect digits --store file": "file is a file, not a store",
    "submit train-digits --seeds 1000000000": "less than or equal to 1000",
    "models --classes 100000000000000000000": "less than or equal to 1000000",
}


@pytest.fixture(autouse=True)
def file(cifarray_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain file in the current folder: nothing can lie below it, whoever asks."""
    monkeypatch.chdir(cifarray_home)
    Path("file").write_text("text")


@pytest.mark.parametrize(("line", "words"), UNREADABLE.items(), ids=range(len(UNREADABLE)))
def test_what_cannot_be_reached_is_one_sentence(typed: Type, line: str, words: str) -> None:
    shown = typed(*line.split())
    assert shown.code == 2, shown.err
    assert words in " ".join(shown.err.split())


def test_an_error_of_the_system_that_no_command_expects_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [CIFARRAY, "jobs", "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 2
    assert ended.stderr == "error: the operating system refused: No space left on device\n"


def test_a_name_that_the_terminal_cannot_show_is_shown_all_the_same(typed: Type) -> None:
    shown = typed("submit", "train-digits", "--dry-run", "--json", "--set", "description=\udcff")
    assert shown.code == 0
    assert '"description": "\\udcff"' in shown.out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["data", "prepare", "cifar10", "--archive", ""], "--archive"),
        (["submit", "train-digits", "--archive="], "--archive"),
        (["runs", "--store", ""], "--store"),
        (["runs", "--store", " "], "--store"),
        (["runs", "--endpoint", ""], "--endpoint"),
        (["evaluate", "run", "--dataset", ""], "--dataset"),
        (["report", "run", "-o", ""], "-o"),
        (["predict", "", "a.png"], "predict"),
        (["submit", "train-digits", "--cluster", ""], "--cluster"),
        (["submit", "train-digits", "--best-of", ""], "--best-of"),
        (["submit", "train-digits", "--name", ""], "--name"),
        (["cluster", "render", "--image", ""], "--image"),
    ],
)
def test_an_empty_value_names_nothing(typed: Type, words: list[str], named: str) -> None:
    shown = typed(*words)
    assert shown.code == 2
    assert shown.err == (
        f"error: the value of {named} is empty, as when a shell variable is unset; give a value, "
        "or leave the option out\n"
    )


def test_a_text_may_be_empty_and_a_flag_takes_no_value(typed: Type, cifarray_home: Path) -> None:
    assert typed("submit", "train-digits", "--dry-run", "--set", "description=").code == 0
    assert not Store.open(str(cifarray_home / "store")).list()
