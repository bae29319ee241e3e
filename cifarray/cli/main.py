"""`cifarray`: the commands, their order in the help, and what an error looks like."""

import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, NoReturn

import typer

from cifarray import __version__
from cifarray.cli import output
from cifarray.cli.foreign_text import one_line
from cifarray.cli.options import QuietOption, VerboseOption
from cifarray.errors import CifarrayError, InputError
from cifarray.proxies import spare_loopback
from cifarray.user_folders import provide_home

COMMANDS = {
    "submit": "submit:submit",
    "run": "submit:run",
    "runs": "runs:runs",
    "status": "runs:status",
    "logs": "runs:logs",
    "stop": "control:stop",
    "resume": "control:resume",
    "pull": "store:pull",
    "report": "reports:report",
    "compare": "reports:compare",
    "evaluate": "inference:evaluate",
    "predict": "inference:predict",
    "export": "inference:export",
    "delete": "store:delete",
    "prune": "store:prune",
    "exporter": "store:exporter",
    "jobs": "catalogs:jobs",
    "models": "catalogs:models",
    "datasets": "catalogs:datasets",
    "doctor": "doctor:doctor",
}
"""Command, and the module:function below cifarray.cli; the order is that of the help."""

GROUPS = {"data": "data:app", "cluster": "cluster:app"}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cifarray {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train and tune image classifiers, on this machine or on a cluster.

    \b
    Start here:  cifarray submit tune-digits --prepare
    Then:        cifarray runs
    """


def build_app() -> typer.Typer:
    """The whole command line as one Typer application."""
    app = typer.Typer(
        name="cifarray",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, place in COMMANDS.items():
        app.command(name)(_find(place))
    for name, place in GROUPS.items():
        app.add_typer(_find(place), name=name, no_args_is_help=True)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; ends the process with 0, 1 (the work failed) or 2 (bad input)."""
    if arguments is None:
        _start_again_in_utf8()
    output.set_level(output.NORMAL)
    provide_home()
    spare_loopback()
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a name may contain characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        build_app()(args=arguments, prog_name="cifarray")
    except CifarrayError as error:
        _end(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output has closed it, as in `cifarray runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(_in_words(error), InputError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _start_again_in_utf8() -> None:
    """Use UTF-8 for file names whatever the locale says, here and in child processes."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _end(sentence: str, exit_code: int) -> NoReturn:
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    sys.exit(exit_code)


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty value, as from an unset shell variable: it would name the current folder."""
    for before, word in pairwise(["cifarray", *words]):
        if re.fullmatch(r"\s*|--[\w-]+=\s*", word):
            option = word.partition("=")[0].strip() or before
            raise InputError(
                f"the value of {option} is empty, as when a shell variable is unset; give a "
                "value, or leave the option out"
            )


def _in_words(error: OSError) -> str:
    """The message for an OSError that no command explains better."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    if error.filename is None:
        return f"the operating system refused: {reason}"
    return f"cannot use {error.filename}: {reason}; give another path, or fix this one"


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"cifarray.cli.{module}"), name)
