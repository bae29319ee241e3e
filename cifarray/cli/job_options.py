"""The arguments and options of `submit` and `run`."""

from pathlib import Path
from typing import Annotated

import typer

MOST_SEEDS = 1000

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job's name (`cifarray jobs` lists them), or a path to a YAML file."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Another value for a field of the job, as train.epochs=3; repeatable.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="The run's id  [default: job, date, time]", show_default=False),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check and print the resolved job; start nothing.")
]
PrepareOption = Annotated[
    bool, typer.Option("--prepare", help="Prepare the dataset first if the store lacks it.")
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="PATH|URL",
        help="Prepare the dataset from this archive (implies --prepare).",
        show_default=False,
    ),
]
CodeOption = Annotated[
    Path | None,
    typer.Option(
        "--code",
        metavar="DIR",
        help="Folder with a network of your own; it travels with the run.",
        show_default=False,
    ),
]
BestOfOption = Annotated[
    str | None,
    typer.Option(
        "--best-of",
        metavar="RUN",
        help="Take the fields that this sweep's best trial had.",
        show_default=False,
    ),
]
SeedsOption = Annotated[
    int,
    typer.Option(
        "--seeds",
        metavar="N",
        min=1,
        max=MOST_SEEDS,
        help="So many runs, each with the next seed.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Workers of a training  [default: the profile's]",
        show_default=False,
    ),
]
