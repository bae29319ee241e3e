"""Text is UTF-8 whatever the locale says: in files, from other programs, and on the terminal."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
CIFARRAY = Path(sys.executable).with_name("cifarray")
CHECKED = ("cifarray", "scripts", "benchmarks")
POSITION = {"read_text": 0, "write_text": 1}
"""Which positional argument names the encoding."""
CHILDREN = ("run", "Popen", "check_output")
LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "c": {"LC_ALL": "C", "LANG": "C"},
    "terminal": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
}
CLASS_NAMES = ["Müll", "猫"]


def unnamed(source: str) -> Iterator[int]:
    """Lines that read or write text in the locale's encoding."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
        words = {word.arg: word.value for word in call.keywords}
        if "encoding" in words:
            continue
        if name in POSITION and len(call.args) <= POSITION[name]:
            yield call.lineno
        if name in ("open", "fdopen") and _opens_text(call):
            yield call.lineno
        if name in CHILDREN and {"text", "universal_newlines"} & words.keys():
            yield call.lineno


def _opens_text(call: ast.Call) -> bool:
    given = [*call.args, *(word.value for word in call.keywords)]
    constants = [each.value for each in given if isinstance(each, ast.Constant)]
    modes = [each for each in constants if re.fullmatch(r"[rwax][bt+]*", str(each))]
    if modes:
        return "b" not in str(modes[0])
    is_builtin = isinstance(call.func, ast.Name) and call.func.id == "open"
    return is_builtin or not given


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open('rb')", False),
        ("os.fdopen(number, 'w')", True),
        ("os.fdopen(number, 'w', encoding='utf-8')", False),
        ("Store.open(uri)", False),
        ("subprocess.run(words, text=True)", True),
        ("subprocess.run(words, encoding='utf-8')", False),
    ],
)
def test_what_leaves_the_encoding_to_the_locale_is_found(source: str, found: bool) -> None:
    assert bool(list(unnamed(source))) is found


def test_every_text_file_and_program_is_read_with_a_named_encoding() -> None:
    places = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for folder in CHECKED
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line in unnamed(path.read_text("utf-8"))
    ]
    assert places == []


@pytest.fixture
def photos_of_names(tmp_path: Path) -> Path:
    """Images in folders whose names no ASCII locale can spell, below one that it cannot either."""
    numbers = np.random.default_rng(0)
    folder = tmp_path / "größe"
    for split in ("train", "test"):
        for name in CLASS_NAMES:
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(3):
                pixels = numbers.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES)
def test_names_beyond_ascii_pass_through_any_locale(
    locale: dict[str, str], photos_of_names: Path, tmp_path: Path
) -> None:
    store = tmp_path / "störe"
    words = ["data", "prepare", "mine", "--layout", "imagefolder", "--archive", photos_of_names]
    prepared = _typed(locale, *words, "--store", store)
    assert (prepared.returncode, "Traceback" in prepared.stderr) == (0, False), prepared.stderr
    for arguments in (["data", "inspect", "mine"], ["runs"], ["datasets"]):
        shown = _typed(locale, *arguments, "--store", store)
        assert (shown.returncode, "Traceback" in shown.stderr) == (0, False), shown.stderr
    (manifest,) = store.glob("datasets/mine/*/manifest.json")
    assert sorted(json.loads(manifest.read_text("utf-8"))["classes"]) == CLASS_NAMES


def _typed(locale: dict[str, str], *words: str | Path) -> "subprocess.CompletedProcess[str]":
    bare = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    return subprocess.run(
        [CIFARRAY, *words], env=bare | locale, capture_output=True, encoding="latin-1", timeout=60
    )
