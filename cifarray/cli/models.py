"""`cifarray models`: the networks, their sizes, their layers and their pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cifarray.cli.inference import CodeOption
from cifarray.cli.options import JsonOption
from cifarray.cli.output import print_json, print_line, print_table
from cifarray.errors import InputError


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A network, timm/<name>, or package.module:factory  [default: list all]",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        int,
        typer.Option("--classes", min=1, max=1_000_000, help="Number of classes to count with."),
    ] = 100,
    head: Annotated[
        int | None,
        typer.Option(
            "--head",
            min=1,
            max=65_536,
            help="Width of a hidden dense layer before the last, of timm/<name>.",
            show_default=False,
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="List NAME's layers: output shape and parameters.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="FILE.svg|png", help="Draw NAME into a file.", show_default=False
        ),
    ] = None,
    code: CodeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the networks with their numbers of parameters, for images that each was made for.

    \b
    Example:  cifarray models resnet18 --classes 10
              cifarray models timm/resnet50 --classes 200 --head 500 --json
              cifarray models cnn3 --summary --picture cnn3.png
    """
    from cifarray.models.registry import BACKBONE, MODELS, is_own
    from cifarray.models.sizes import describe_model
    from cifarray.spec.job import ModelSpec

    if name is None and (summary or picture is not None):
        raise InputError("--summary and --picture are of one network; name it, as in `models cnn3`")
    if name is None and head is not None:
        raise InputError(f"--head {head} is for one network; name it, as in timm/resnet50")
    if code is not None and not (name and is_own(name)):
        raise InputError(
            f"--code {code} is for a network of your own; name it, as package.module:factory"
        )
    names = list(MODELS) if name is None else [name]
    listed = summary or picture is not None
    described = [
        describe_model(ModelSpec(name=n, head=head), classes, code, layers=listed) for n in names
    ]
    if picture is not None:
        _draw(described[0], picture)
    if not summary:
        for record in described:
            record.pop("layers", None)
    if as_json:
        print_json(described if name is None else described[0])
        return
    rows = [_row(record) for record in described]
    if name is None:
        rows.append(("timm/<name>", None, None, BACKBONE.title, BACKBONE.paper))
    print_table(("name", "parameters", "images", "network", "paper"), rows)
    if summary:
        _print_layers(described[0])
    if picture is not None:
        print_line(f"picture: {picture}")


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    from cifarray.models.registry import find_entry

    entry = find_entry(record["name"])
    about = (entry.title, entry.paper) if entry else ("your own", None)
    images = "x".join(map(str, record["input_shape"]))
    return record["name"], f"{record['parameters']['total']:,}", images, *about


def _print_layers(record: dict[str, Any]) -> None:
    from cifarray.report.network import Layer, shape_text

    layers = [Layer.from_mapping(values) for values in record["layers"]]
    rows = [
        (
            *(each.name, each.kind, each.detail, shape_text(each.output_shape)),
            *(f"{each.parameters:,}", each.learns),
        )
        for each in layers
    ]
    print_line()
    print_table(("layer", "kind", "", "output", "parameters", "trainable"), rows)
    counts = record["parameters"]
    print_line()
    print_line(
        f"{counts['total']:,} parameters, {counts['trainable']:,} of them trainable; "
        f"{counts['buffers']:,} running statistics"
    )


def _draw(record: dict[str, Any], path: Path) -> None:
    """Write the network's picture. Raises: InputError."""
    from cifarray.report.network import Layer, network_size, paint_network, solids
    from cifarray.report.svg import ON_PAPER, draw_file

    height, width, channels = record["input_shape"]
    layers = [Layer.from_mapping(values) for values in record["layers"]]
    drawn = solids(layers, (channels, height, width))
    draw_file(path, network_size(drawn), lambda figure: paint_network(figure, drawn, ON_PAPER))
