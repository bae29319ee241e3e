"""`cifarray jobs`, `models` and `datasets`: lists of shipped jobs, networks and datasets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarray.cli import output
from cifarray.cli.data import described, images_of
from cifarray.cli.inference import CodeOption
from cifarray.cli.options import ClusterOption, EndpointOption, JsonOption, StoreOption, open_store
from cifarray.errors import InputError
from cifarray.spec.quantity import written_bytes

if TYPE_CHECKING:
    from cifarray.data.catalog import DatasetEntry
    from cifarray.data.manifest import Manifest

DATASET_COLUMNS = ("name", "images", "classes", "train", "test", "download", "prepared")


def jobs(json: JsonOption = False) -> None:
    """List the jobs that come with cifarray.

    \b
    Example:  cifarray jobs
              cifarray submit tune-digits --dry-run
    """
    from cifarray.spec.load import job_names, load_job

    found = [load_job(name) for name in job_names()]
    if json:
        output.print_json([job.model_dump(mode="json") for job in found])
        return
    rows = [
        (job.name, job.kind, job.dataset.name, job.model.name, job.description) for job in found
    ]
    output.print_table(("job", "kind", "dataset", "model", "description"), rows)


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
        typer.Option(
            "--classes", min=1, max=1_000_000, help="Number of classes, for the parameter counts."
        ),
    ] = 100,
    head: Annotated[
        int | None,
        typer.Option(
            "--head",
            min=1,
            max=65_536,
            help="Width of a hidden dense layer before the last; timm/<name> only.",
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
    """List the networks with their parameter counts, each for the images it was designed for.

    \b
    Example:  cifarray models resnet18 --classes 10
              cifarray models timm/resnet50 --classes 200 --head 500 --json
              cifarray models cnn3 --summary --picture cnn3.png
    """
    from cifarray.models.registry import BACKBONE, MODELS, is_user_network
    from cifarray.models.summary import describe_model
    from cifarray.spec.job import ModelSpec

    if name is None and (summary or picture is not None):
        raise InputError(
            "--summary and --picture require one network; name it, as in `models cnn3`"
        )
    if name is None and head is not None:
        raise InputError(f"--head {head} is for one network; name it, as in timm/resnet50")
    if code is not None and not (name and is_user_network(name)):
        raise InputError(
            f"--code {code} is for your own network; name it as package.module:factory"
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
        output.print_json(described if name is None else described[0])
        return
    rows = [_row(record) for record in described]
    if name is None:
        rows.append(("timm/<name>", None, None, BACKBONE.title, BACKBONE.paper))
    output.print_table(("name", "parameters", "images", "network", "paper"), rows)
    if summary:
        _print_layers(described[0])
    if picture is not None:
        output.print_line(f"picture: {picture}")


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
    output.print_line()
    output.print_table(("layer", "kind", "", "output", "parameters", "trainable"), rows)
    counts = record["parameters"]
    output.print_line()
    output.print_line(
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


def datasets(
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
) -> None:
    """List the datasets that cifarray knows, and which of them are prepared in the store.

    Example: cifarray datasets --store s3://bucket/cifarray
    """
    from cifarray.data.catalog import DATASETS
    from cifarray.data.manifest import latest_digest, load_manifest
    from cifarray.errors import DatasetError
    from cifarray.store import layout

    opened = open_store(store, endpoint, cluster)
    names = [*DATASETS, *sorted(set(opened.folders(layout.DATASETS)) - set(DATASETS))]
    found = []
    for name in names:
        try:
            manifest = load_manifest(opened, name) if latest_digest(opened, name) else None
        except DatasetError as error:  # the other datasets are still listed
            output.warn(str(error))
            manifest = None
        entry = DATASETS.get(name)
        known = entry or manifest
        if known is None:  # an incomplete dataset does not count
            continue
        found.append(
            _about(known, entry) | {"prepared": described(opened, manifest) if manifest else None}
        )
    if json:
        output.print_json(found)
    else:
        output.print_table(DATASET_COLUMNS, [_listed(known) for known in found])


def _about(known: "DatasetEntry | Manifest", entry: "DatasetEntry | None") -> dict[str, Any]:
    """What is known about a dataset; `entry` is from the catalog, None for the user's images."""
    return {
        "name": known.name,
        "title": known.title,
        "shape": list(known.shape) if known.shape else None,
        "classes": len(known.classes),
        "coarse_classes": len(known.coarse_classes),
        "published_rows": dict(entry.rows) if entry else {},
        "download_bytes": sum(file.size_bytes for file in entry.archives) if entry else 0,
        "homepage": entry.homepage if entry else None,
    }


def _listed(known: dict[str, Any]) -> list[object]:
    rows, prepared = known["published_rows"], known["prepared"]
    there = None
    if prepared:
        held = " + ".join(f"{count:,}" for count in prepared["rows"].values())
        there = f"{prepared['digest'][:12]} ({held} rows)"
    download = known["download_bytes"]
    return [
        known["name"],
        images_of(known["shape"]),
        known["classes"],
        f"{rows['train']:,}" if rows else None,
        f"{rows['test']:,}" if rows else None,
        written_bytes(download) if download else None,
        there,
    ]
