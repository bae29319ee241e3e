"""Commands that use trained networks: evaluate, predict, export."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    StoreOption,
    VerboseOption,
    open_store,
)
from cifarray.cli.output import detail, print_json, print_line, say

if TYPE_CHECKING:
    from cifarray.inference.predict import Prediction
    from cifarray.store import Store
    from cifarray.training.checkpoint import Checkpoint

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        help="A run's id, the folder of a pulled run, or a checkpoint's folder.",
    ),
]
CodeOption = Annotated[
    Path | None,
    typer.Option(
        "--code",
        metavar="DIR",
        help="Folder with the code of your own network.",
        show_default=False,
    ),
]


def evaluate(
    target: TargetArgument,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Another dataset with the same classes  [default: the one that the network was "
            "trained on]",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="test, or the job's train or validation.")
    ] = "test",
    code: CodeOption = None,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Evaluate a checkpoint on every row of a split, in this process.

    \b
    Example:  cifarray evaluate train-digits-261123-040000-1a2b
              cifarray evaluate ./pulled-run --split validation --json
    """
    from cifarray.inference.evaluate import evaluate

    opened = _opener(store, endpoint, cluster)
    checkpoint, origin = _open(target, opened, code)
    say(f"evaluating {origin}, epoch {checkpoint.epoch} ...")
    evaluation = evaluate(checkpoint, opened(), dataset, split)
    if as_json:
        print_json({"checkpoint": origin, **evaluation.to_json()})
        return
    rows = evaluation.predictions
    low, high = rows.interval
    print_line(f"{evaluation.dataset} {evaluation.digest[:12]}, {split}: {rows.rows} rows")
    print_line(f"top1  {rows.top1:.4f}  (95 % interval {low:.4f} to {high:.4f})")
    print_line(f"top5  {rows.top5:.4f}")
    print_line(f"loss  {rows.loss:.4f}")


def predict(
    target: TargetArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Image files: JPEG, PNG, WebP, ...")
    ],
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.png|svg",
            help="Draw each image (at most 32) next to its most probable classes.",
            show_default=False,
        ),
    ] = None,
    code: CodeOption = None,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Classify image files: the five most probable classes of each.

    Images are resized and converted to what the network takes; the output says how.
    With a pulled run or a checkpoint's folder this needs no store and no network.

    \b
    Example:  cifarray predict ./pulled-run apple.jpg pear.png
              cifarray predict ./pulled-run apple.jpg --picture apple-seen.png
    """
    from cifarray.inference.predict import predict

    if picture is not None:
        from cifarray.report.prediction_plots import check_drawing

        check_drawing(picture, len(images))
    checkpoint, origin = _open(target, _opener(store, endpoint, cluster), code)
    predictions = predict(checkpoint, images)
    if picture is not None:
        _draw(picture, predictions)
    if as_json:
        print_json([prediction.to_json() for prediction in predictions])
        return
    say(f"{origin}, epoch {checkpoint.epoch}")
    for prediction in predictions:
        changes = f"  ({'; '.join(prediction.changes)})" if prediction.changes else ""
        print_line(f"{prediction.image}{changes}")
        for guess in prediction.top5:
            print_line(f"  {guess.probability:7.2%}  {guess.label}")


def export(
    target: TargetArgument,
    form: Annotated[
        str, typer.Option("--format", help="onnx, torch-export or safetensors.")
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write  [default: named after the job, in the current folder]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    code: CodeOption = None,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a network with its preprocessing and class names into one file.

    onnx and torch-export take raw pixels (uint8, batch x height x width x channels, any batch size)
    and return probabilities; their metadata contains the class names. safetensors contains the
    weights, with the rest in its header.

    \b Example: cifarray export train-digits-261123-040000-1a2b --format onnx -o digits.onnx
    """
    from cifarray.inference.export import check_format, default_output, export

    check_format(form)
    checkpoint, _ = _open(target, _opener(store, endpoint, cluster), code)
    path = output or default_output(checkpoint, form)
    say(f"exporting {checkpoint.job.model.name} as {form} ...")
    export(checkpoint, form, path, replace=force)
    if as_json:
        print_json({"path": str(path), "format": form, "size_bytes": path.stat().st_size})
    else:
        print_line(str(path))


def _draw(path: Path, predictions: "Sequence[Prediction]") -> None:
    from cifarray.report.prediction_plots import PredictedImage, draw_predictions

    rows = [
        PredictedImage(
            Path(prediction.image).name,
            prediction.pixels_HWC,
            [(guess.label, guess.probability) for guess in prediction.top5],
        )
        for prediction in predictions
    ]
    draw_predictions(path, rows)


def _opener(store: str | None, endpoint: str | None, cluster: str) -> "Callable[[], Store]":
    """Opens the store at the first call, and gives the same one at the next."""
    return cache(lambda: open_store(store, endpoint, cluster))


def _open(
    target: str, opened: "Callable[[], Store]", code: Path | None
) -> tuple["Checkpoint", str]:
    from cifarray.inference.find_checkpoint import open_checkpoint

    checkpoint, origin = open_checkpoint(target, opened, code)
    dataset = checkpoint.dataset
    trained = f"{checkpoint.job.model.name} of {dataset['name']} {dataset['digest'][:12]}"
    detail(f"{origin}: {trained}, {checkpoint.step} steps")
    return checkpoint, origin
