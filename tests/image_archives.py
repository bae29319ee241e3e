"""Archives of image files, made of shaded squares: folders of classes, birds, the Hub's Parquet."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cifarray.data.catalog import DATASETS

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((24, 32), (40, 20), (33, 33))
"""Height and width of one image after the other."""


def picture(label: int, number: int, size: Size = (24, 32)) -> Image.Image:
    """An image whose class is easily seen: a shade of its own, and some noise."""
    noise = np.random.default_rng((label, number)).integers(0, 40, (*size, 3))
    shade = np.array([(90 * label) % 200, (50 + 130 * label) % 200, 20 * (label % 9)])
    return Image.fromarray((noise + shade).astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def folder_files(
    classes: Sequence[str] = ("cat", "dog"),
    train: int = 6,
    test: int = 3,
    sizes: Sequence[Size] = SIZES,
) -> dict[str, bytes]:
    """train/CLASS/x.jpg and test/CLASS/y.png: every second one of each kind."""
    files = {}
    for split, rows in (("train", train), ("test", test)):
        for label, name in enumerate(classes):
            for number in range(rows):
                image = picture(label, number + 100 * (split == "test"), sizes[number % len(sizes)])
                form, suffix = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
                files[f"{split}/{name}/{number:03d}.{suffix}"] = encoded(image, form)
    return files


def bird_files(rows_per_class: int = 4, classes: int = 3) -> dict[str, bytes]:
    """CUB-200-2011's lists of 200 classes, with images of the first few; half of them are test."""
    names = [f"{k:03d}.{name}" for k, name in enumerate(DATASETS["cub200"].classes, start=1)]
    lists: dict[str, list[str]] = {name: [] for name in ("images", "labels", "split", "boxes")}
    files = {}
    for row in range(rows_per_class * classes):
        label, number = divmod(row, rows_per_class)
        path = f"{names[label]}/bird_{number:04d}.jpg"
        height, width = SIZES[row % len(SIZES)]
        files[f"images/{path}"] = encoded(picture(label, number, (height, width)), "JPEG")
        lists["images"].append(path)
        lists["labels"].append(str(label + 1))
        lists["split"].append(str(1 - number % 2))
        lists["boxes"].append(f"4.0 2.0 {width - 6}.0 {height - 5}.0")
    texts = {
        "images.txt": lists["images"],
        "image_class_labels.txt": lists["labels"],
        "train_test_split.txt": lists["split"],
        "bounding_boxes.txt": lists["boxes"],
        "classes.txt": names,
    }
    return files | {name: numbered(lines) for name, lines in texts.items()}


def numbered(lines: Sequence[str]) -> bytes:
    """Lines of a list: an id from 1 on, a blank and what it says."""
    return "".join(f"{number} {line}\n" for number, line in enumerate(lines, start=1)).encode()


def hub_shard(
    images: Sequence[bytes | None],
    labels: Sequence[int | None],
    classes: Sequence[str] = ("cat", "dog"),
    column: str = "image",
) -> pa.Table:
    """A table as the `datasets` package writes one of images and class labels."""
    features = {
        column: {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(classes)},
    }
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = [{"bytes": content, "path": None} for content in images]
    columns = {column: pa.array(structs, kind), "label": pa.array(labels, pa.int64())}
    return pa.table(columns).replace_schema_metadata(about)


def hub_tables(
    sizes: Sequence[Size] = SIZES, rows: int = 6, column: str = "image"
) -> dict[str, pa.Table]:
    """Two shards of train and one of test."""
    tables = {}
    for part, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000")):
        labels = [row % 2 for row in range(rows)]
        images = [
            encoded(picture(label, row + 50 * part, sizes[row % len(sizes)]))
            for row, label in enumerate(labels)
        ]
        tables[f"data/{name}.parquet"] = hub_shard(images, labels, column=column)
    return tables


def write_folder(folder: Path, files: Mapping[str, bytes | pa.Table]) -> Path:
    """These files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content)
    return folder


def write_tar_of(path: Path, files: Mapping[str, bytes], below: str = "archive/") -> Path:
    """A tar.gz of these files in a folder of its own."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{below}{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_zip_of(path: Path, files: Mapping[str, bytes], below: str = "archive/") -> Path:
    """A zip of these files in a folder of its own."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{below}{name}", content)
    return path
