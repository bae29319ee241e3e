"""The tree of errors is the one that `cifarray.errors` draws."""

import re
from collections.abc import Iterator

import pytest

from cifarray import errors
from cifarray.errors import CifarrayError

LINE = re.compile(r"(?P<branches>(?:[│ ] {3})*(?:[├└]── )?)(?P<name>\w+) +(?:exit (?P<code>\d))?")


def drawn() -> Iterator[tuple[str, str | None, int | None]]:
    """Every class of the drawing: its name, its parent's, and the exit code that is drawn for it.

    A code stands for all classes below it.
    """
    path: list[tuple[str, int | None]] = []
    for line in (errors.__doc__ or "").splitlines()[2:]:
        found = LINE.match(line)
        assert found, line
        depth = len(found["branches"]) // 4
        parent, inherited = path[depth - 1] if depth else (None, None)
        code = int(found["code"]) if found["code"] else inherited
        path = [*path[:depth], (found["name"], code)]
        yield found["name"], parent, code


def below(kind: type[CifarrayError]) -> Iterator[type[CifarrayError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from below(child)


def test_the_drawing_shows_every_class_below_its_parent() -> None:
    classes = {
        name: kind.__base__.__name__ if kind is not CifarrayError and kind.__base__ else None
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert {name: parent for name, parent, _ in drawn()} == classes


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, _, code in drawn() if code])
def test_each_class_and_all_that_derive_from_it_end_a_command_as_drawn(
    name: str, code: int
) -> None:
    assert {kind.exit_code for kind in below(getattr(errors, name))} == {code}


def test_what_is_bad_input_and_what_failed_are_told_apart_by_the_code() -> None:
    codes = {name: code for name, _, code in drawn()}
    assert {code for name, code in codes.items() if name != "CifarrayError"} == {1, 2}
    assert (codes["InputError"], codes["StoreError"], codes["WorkError"]) == (2, 1, 1)
