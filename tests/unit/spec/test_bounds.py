"""Documents that would exhaust a parser, memory or a terminal are refused in one sentence."""

import ast
from pathlib import Path

import pytest

import cifarray
from cifarray.spec.bounds import MOST_JSON_BYTES, parse_json, parse_yaml, refuse_unbounded

YAML_BOMB = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "nested more than 100 levels deep"),
        ("[" * 200 + "]" * 200, "nested more than 100 levels deep"),
        ('{"a": ' * 200 + "1" + "}" * 200, "nested more than 100 levels deep"),
        ("1" * 5000, "digits"),
        ("1" * 200, "the number 11111111111111111111... has too many digits"),
        ('"\\ud800"', "surrogates not allowed"),
        ('{"\\udc00": 1}', "surrogates not allowed"),
        ("[1" + " " * MOST_JSON_BYTES + "]", "it is larger than 16 MiB"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_no_record_holds_is_refused(text: str, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        parse_json(text)


def test_json_within_the_bounds_is_read():
    text = '{"a": [1, -2.5, null, true, "\\u00e9"], "b": 18446744073709551615}'
    assert parse_json(text) == {"a": [1, -2.5, None, True, "é"], "b": 2**64 - 1}
    assert parse_json(b"[" * 100 + b"]" * 100)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 150 + "]" * 150, "nested more than 100 levels deep"),
        (YAML_BOMB, "it expands to more than 100000 values"),
        ("a: &a [*a]", "an alias contains itself"),
        ("a: 0x" + "f" * 20_000, "a number has too many digits"),
        ("a: " + "1" * 200, "a number has too many digits"),
        ("!!timestamp x", "groupdict"),
        ("2026-99-99", "month must be in"),
        ("!!python/object/apply:os.mkdir [x]", "could not determine a constructor"),
        ("a" * 300_000, "it is too long: at most 262144 characters"),
        ("? [a]\n: b", "found unhashable key"),
    ],
)
def test_yaml_that_nobody_writes_is_refused_in_one_line(text: str, sentence: str):
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_lists_that_share_their_parts_count_as_often_as_they_occur():
    shared: list[object] = [0] * 10
    for _ in range(3):
        shared = [shared] * 10
    refuse_unbounded(shared, 12_000)
    with pytest.raises(ValueError, match="expands to more than 11000 values"):
        refuse_unbounded(shared, 11_000)
    itself: list[object] = []
    itself.append(itself)
    with pytest.raises(ValueError, match="nested more than"):
        refuse_unbounded(itself)


HOMES = {
    "json.loads": {
        "spec/bounds.py",
        "cli/output.py",  # of what it has just written
        "backends/kubernetes/client.py",
        "backends/kubernetes/bootstrap.py",
    },
    "yaml.load": {"spec/bounds.py"},
    "yaml.load_all": {"backends/kubernetes/manifests.py"},  # what comes with cifarray
    "torch.load": {"models/torch_files.py"},
    "pickle.loads": set[str](),
    "pickle.load": set[str](),
    "yaml.safe_load": set[str](),
    "json.load": set[str](),
}


@pytest.mark.parametrize("call", HOMES)
def test_each_parser_has_one_home(call: str):
    package = Path(cifarray.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call
    }
    assert found == HOMES[call]
