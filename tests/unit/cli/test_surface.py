"""The commands and options that people and scripts rely on, and their help."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cifarray.cli.main import build_app
from tests.golden_files import Golden
from tests.unit.cli.conftest import Type


def commands(group: Any, path: str = "cifarray") -> Iterator[tuple[str, Any]]:
    """Every command with the words that name it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


ALL = list(commands(typer.main.get_command(build_app())))


def described(path: str, command: Any) -> list[str]:
    """A command's arguments and options, one a line."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    names = [p.metavar or p.name.upper() for p in arguments]
    shown = (" / ".join([", ".join(p.opts), *p.secondary_opts]) for p in options)
    return [" ".join([path, *names]), *(f"    {line}" for line in shown if "--help" not in line)]


def test_the_commands_and_their_options_are_the_agreed_ones(golden: Golden) -> None:
    lines = [line for path, command in ALL for line in described(path, command)]
    golden.check_text("cli.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_commands_help_has_an_example_that_names_it(
    typed: Type, path: str, command: Any
) -> None:
    shown = typed(*path.split()[1:], "--help")
    assert shown.code == 0
    example = shown.out.partition("Example:")[2]
    assert path in " ".join(example.split())


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_option_says_what_it_does(path: str, command: Any) -> None:
    silent = [p.name for p in command.params if p.param_type_name == "option" and not p.help]
    assert silent == []


def test_the_version_is_the_packages(typed: Type) -> None:
    from cifarray import __version__

    assert typed("--version").out == f"cifarray {__version__}\n"


def test_no_command_shows_the_help(typed: Type) -> None:
    shown = typed()
    assert "submit" in shown.out + shown.err
    assert "--install-completion" not in shown.out + shown.err
