"""Commands on a dataset: data prepare, data inspect, data verify; and how they show progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifarray.cli import output
from cifarray.cli.options import (
    ClusterOption,
    EndpointOption,
    JsonOption,
    QuietOption,
    StoreOption,
    open_store,
)
from cifarray.errors import InputError, WorkError

if TYPE_CHECKING:
    from cifarray.data.left_out import LeftOut
    from cifarray.data.manifest import Manifest
    from cifarray.store import Store

SHOWN_PROBLEMS = 20
SHOWN_REASONS = 20

app = typer.Typer(help="Prepare, inspect and verify datasets in the store.", rich_markup_mode=None)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a dataset; `cifarray datasets` lists them.")
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="PATH|URL",
        help="The published archive, or one with the same layout and fewer rows; a folder if it "
        "consists of several files; with --layout a folder, tar or zip  [default: "
        "downloaded from the official address]",
        show_default=False,
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help="Layout of your own images, whose NAME you choose: imagefolder (train/CLASS/x.jpg, "
        "test/CLASS/y.png) or huggingface (train-*.parquet, test-*.parquet)  [default: NAME "
        "is a dataset of the catalog]",
        show_default=False,
    ),
]
CropOption = Annotated[
    bool, typer.Option("--crop", help="Crop images to the archive's bounding boxes (cub200).")
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Skip images that do not decode, and count them.")
]
AcceptLossOption = Annotated[
    bool,
    typer.Option(
        "--accept-loss", help="Continue even if more than 1 % of a class's images are left out."
    ),
]
TestSplitOption = Annotated[
    str,
    typer.Option(
        "--test-split",
        metavar="SPLIT",
        help="The split to use as test: test, validation, valid, val or dev (with --layout).",
    ),
]
AgainOption = Annotated[
    bool,
    typer.Option(
        "--again", help="Write the dataset again even if it exists, as when it is damaged."
    ),
]
GridOption = Annotated[
    Path | None,
    typer.Option(
        "--grid", metavar="FILE.png", help="Write a picture with some images of each class."
    ),
]


@app.command()
def prepare(
    name: NameArgument,
    archive: ArchiveOption = None,
    layout: LayoutOption = None,
    crop: CropOption = False,
    skip_bad: SkipBadOption = False,
    accept_loss: AcceptLossOption = False,
    test_split: TestSplitOption = "test",
    again: AgainOption = False,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a dataset into the store as Parquet, unless it is already there.

    \b
    Example: cifarray data prepare cifar100 --archive cifar-100-python.tar.gz
             cifarray data prepare flowers --layout imagefolder --archive my-flowers/
    """
    from cifarray.data.catalog import DATASETS
    from cifarray.data.ingest import Ingest
    from cifarray.data.ingest import prepare as prepare_dataset

    how = Ingest(layout, crop, skip_bad, accept_loss, test_split)
    opened = open_store(store, endpoint, cluster)
    with shown_progress() as progress:
        manifest, written = prepare_dataset(opened, name, archive, progress, again=again, how=how)
    if json:
        output.print_json(described(opened, manifest) | {"written": written})
        return
    state = "is now" if written else "was already"
    output.print_line(f"{manifest.title} {state} in {_folder(opened, manifest)}")
    for split, content in manifest.splits.items():
        output.print_line(f"  {split:<6} {content.rows:>8,} rows")
    if manifest.coarse_classes:
        output.print_line(
            f"  {len(manifest.classes)} classes in {len(manifest.coarse_classes)} superclasses"
        )
    source = manifest.source
    published = DATASETS[name].rows if name in DATASETS else {}
    if any(manifest.splits[split].rows < rows for split, rows in published.items()):
        output.print_line(
            f"  fewer rows than published: {source.name} is only a part of the dataset"
        )
    if source.missing_images:
        output.print_line(f"  images that are listed but missing: {source.missing_images:,}")
    if source.test_split != "test":
        output.print_line(f"  test is the source's split {source.test_split}")
    for form, count in source.converted_images.items():
        output.print_line(f"  images of {form} that were converted to PNG, without loss: {count:,}")
    for line in left_out_lines(manifest.left_out):
        output.print_line(f"  {line}")
    if manifest.storage == "encoded":
        output.print_line("  images have different sizes: a job must set preprocess.resize")


@app.command()
def inspect(
    name: NameArgument,
    grid: GridOption = None,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what a prepared dataset contains: rows, classes, pixel statistics, damage, duplicates.

    Example: cifarray data inspect digits --grid digits.png
    """
    from cifarray.data.inspect import inspect_dataset, sample_grid

    if grid is not None:
        with _writing(grid):
            if grid.suffix.lower() != ".png" or not grid.parent.is_dir():
                raise InputError(
                    f"--grid {grid} is not the path of a .png file in an existing folder; give "
                    "such a path"
                )
    opened = open_store(store, endpoint, cluster)
    findings = inspect_dataset(opened, name)
    if grid is not None:
        picture = sample_grid(opened, name)
        with _writing(grid):
            grid.write_bytes(picture)
        findings["grid"] = str(grid)
    if json:
        output.print_json(findings)
    else:
        _print_findings(findings)


@app.command()
def verify(
    name: NameArgument,
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare every file of a prepared dataset with its manifest: sha256, rows, schema.

    Example: cifarray data verify cifar100 --store s3://bucket/cifarray
    """
    from cifarray.data.manifest import load_manifest, repair_command
    from cifarray.data.verify import verify_dataset

    opened = open_store(store, endpoint, cluster)
    manifest = load_manifest(opened, name)
    with shown_progress() as progress:
        problems = verify_dataset(opened, name, manifest.digest, progress)
    files = sum(len(split.files) for split in manifest.splits.values())
    if json:
        output.print_json(described(opened, manifest) | {"files": files, "problems": problems})
    for problem in problems[:SHOWN_PROBLEMS]:
        output.warn(problem)
    if problems:
        raise WorkError(
            f"{name} in {opened.uri} differs from its manifest in {len(problems)} places; run "
            f"`{repair_command(opened, manifest)}` (with the same --archive, if you used one)"
        )
    if not json:
        output.print_line(
            f"{manifest.title} in {_folder(opened, manifest)} is intact: {files} files"
        )


@contextmanager
def _writing(grid: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--grid {grid} cannot be written: {error.strerror}; give another path"
        ) from error


def described(store: "Store", manifest: "Manifest") -> dict[str, Any]:
    """What is in the store of a dataset, as JSON."""
    from cifarray.data.left_out import as_json

    return {
        "name": manifest.name,
        "digest": manifest.digest,
        "folder": _folder(store, manifest),
        "rows": {split: content.rows for split, content in manifest.splits.items()},
        "complete": manifest.source.complete,
        "storage": manifest.storage,
        "crop": manifest.source.crop,
        "missing_images": manifest.source.missing_images,
        "skipped_images": manifest.source.skipped_images,
        "converted_images": dict(manifest.source.converted_images),
        "test_split": manifest.source.test_split,
        "left_out": as_json(manifest.left_out),
    }


def left_out_lines(entries: "Sequence[LeftOut] | None") -> list[str]:
    """What of a source is not in its dataset, a line for each reason and split."""
    from cifarray.data.left_out import in_words, summed

    if entries is None:
        return ["images left out of its source were not counted; `--again` counts them"]
    lines = [f"left out: {in_words(row)}" for row in summed(entries)]
    more = len(lines) - SHOWN_REASONS
    rest = [f"left out: {more} more reasons; --json lists them"] if more > 0 else []
    return lines[:SHOWN_REASONS] + rest


def _folder(store: "Store", manifest: "Manifest") -> str:
    from cifarray.store.layout import dataset_prefix

    return f"{store.uri}/{dataset_prefix(manifest.name, manifest.digest)}"


def _print_findings(findings: dict[str, Any]) -> None:
    from cifarray.data.left_out import LeftOut
    from cifarray.data.statistics import FIGURES, rows_of_table

    output.print_line(
        f"{findings['title']}  {images_of(findings['shape'])}  {findings['digest'][:12]}"
    )
    output.print_line(f"{findings['store']}/{findings['folder']}")
    output.print_line()
    names = ["rows", "missing_images", "undecodable_images", "unknown_labels"]
    names += ["null_images", "null_labels", "min", "max", "channel_mean", "channel_std"]
    names += [] if findings["shape"] else ["heights", "widths"]
    splits = findings["splits"]
    rows = [
        [name.replace("_", " "), *(_figure(content[name]) for content in splits.values())]
        for name in names
    ]
    output.print_table(["", *splits], rows)
    output.print_line()
    figures = [
        [f"{figure:,.2f}" if isinstance(figure, float) else figure for figure in row]
        for row in rows_of_table(splits)
    ]
    output.print_table(["pixels of", "channel", *FIGURES], figures)
    output.print_line()
    counts = {split: content["class_counts"] for split, content in splits.items()}
    output.print_table(
        ["class", *counts], list(zip(findings["classes"], *counts.values(), strict=True))
    )
    output.print_line()
    _print_duplicates(findings["duplicates"])
    found = findings["left_out"]
    entries = None if found is None else [LeftOut.model_validate(entry) for entry in found]
    for line in left_out_lines(entries):
        output.print_line(line)
    if "grid" in findings:
        output.print_line(f"sample images: {findings['grid']}")


def images_of(shape: Sequence[int] | None) -> str:
    """The size of a dataset's images in words."""
    return "x".join(map(str, shape)) if shape else "any size"


def _figure(value: Any) -> object:
    if not isinstance(value, list):
        return value
    if all(isinstance(part, int) for part in value):
        return " to ".join(map(str, value))
    return " ".join(f"{part:.4f}" for part in value)


def _print_duplicates(duplicates: dict[str, Any]) -> None:
    for split, count in duplicates["within"].items():
        output.print_line(f"exact duplicates within {split}: {count}")
    output.print_line(
        f"test images that are also in train: {duplicates['test_rows_also_in_train']}"
    )
    differing = duplicates["groups_with_different_labels"]
    output.print_line(f"equal images with different labels: {differing}")
    for group in duplicates["listed_groups"]:
        rows = (f"{row['split']} {row['row_id']} {row['label']}" for row in group)
        output.print_line("  " + ", ".join(rows))


class ShownProgress:
    """Shows each piece of work as a progress bar, or as a remark if its length is unknown."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._advance: Callable[[int], None] = _ignore

    def start(self, description: str, total: int | None, unit: Literal["bytes", "rows"]) -> None:
        """End the bar that is shown and begin the next."""
        self.close()
        if total is None:
            output.say(f"{description} ...")
        else:
            self._advance = self._shown.enter_context(output.progress(description, total, unit))

    def advance(self, amount: int) -> None:
        """Move the bar that is shown."""
        self._advance(amount)

    def remark(self, text: str) -> None:
        """Print what a person should know."""
        output.say(text)

    def close(self) -> None:
        """End the bar that is shown."""
        self._shown.close()
        self._advance = _ignore


@contextmanager
def shown_progress() -> Iterator[ShownProgress]:
    """Show the progress of `prepare` or `verify_dataset` until the block ends."""
    progress = ShownProgress()
    try:
        yield progress
    finally:
        progress.close()


def _ignore(amount: int) -> None:
    """Where nothing is shown."""
