"""Read CUB-200-2011 as published: text files of a line per image, and the images' folder."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from cifarray.data.catalog import DatasetEntry
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.base import ImageArchive, ListedImages, Reading, is_image
from cifarray.data.readers.files import ArchiveFiles
from cifarray.errors import ArchiveError

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
BOXES = "bounding_boxes.txt"
SPLIT_OF = {"1": "train", "0": "test"}


def is_wanted(name: str) -> bool:
    """Whether a file is one of the lists, or an image below images/CLASS."""
    path = PurePosixPath(name)
    image = len(path.parts) >= 3 and path.parts[-3] == "images" and is_image(name)
    return image or path.name in (*LISTS, BOXES)


def list_cub200(entry: DatasetEntry, files: ArchiveFiles, how: Reading) -> ImageArchive:
    """The images that images.txt lists and that are there, in its order. Raises: ArchiveError."""
    root, crop = _root(files), how.crop
    lists = {name: _read_list(files, root, name) for name in LISTS}
    boxes = _read_list(files, root, BOXES) if crop else {}
    _check_classes(entry, files, lists["classes.txt"])
    there = set(files.names)
    rows: dict[str, list[tuple[int, str, list[float]]]] = {"train": [], "test": []}
    missing = 0
    for image, name in lists["images.txt"].items():
        path = f"{root}images/{name}"
        split = SPLIT_OF.get(_of(files, lists, "train_test_split.txt", image))
        if split is None:
            raise ArchiveError(f"{_line(files, 'train_test_split.txt', image)} is neither 0 nor 1")
        label = _label(entry, files, image, _of(files, lists, "image_class_labels.txt", image))
        if path not in there:
            missing += 1
            how.left_out.add(
                "absent",
                "listed in images.txt but missing",
                split=split,
                class_name=entry.classes[label],
                example=path,
            )
            continue
        box = _box(files, image, _of(files, {BOXES: boxes}, BOXES, image)) if crop else []
        rows[split].append((label, path, box))
    for split, found in rows.items():
        if not found:
            raise ArchiveError(
                f"{files.path.name} contains none of the images that images.txt lists for "
                f"{split}; unpack the images too, next to the lists"
            )
    present = {label for found in rows.values() for label, _, _ in found}
    for label in sorted(set(range(len(entry.classes))) - present):
        how.left_out.add(
            "class",
            "class without an image",
            class_name=entry.classes[label],
            example=entry.classes[label],
        )
    _count_others(files, root, set(lists["images.txt"].values()), how.left_out)
    return ImageArchive(
        entry.classes,
        {split: _listed(files, found, crop) for split, found in rows.items()},
        missing=missing,
    )


def _count_others(
    files: ArchiveFiles, root: str, listed: set[str], left_out: LeftOutCounter
) -> None:
    """Tell of files that are no list, and of images that no list names."""
    for name in files.others:
        left_out.add("file", "not a list or image of the layout", example=name)
    for name in files.names:
        below = name.removeprefix(f"{root}images/")
        if is_image(name) and below not in listed:
            left_out.add("split", "image not listed in images.txt", example=name)


def _root(files: ArchiveFiles) -> str:
    """The folder of the lists, at the top or in the archive's own folder."""
    found = [name for name in files.names if PurePosixPath(name).name == "images.txt"]
    if not found:
        raise ArchiveError(f"{files.path.name} lacks images.txt; is it another dataset's archive?")
    return min(found, key=lambda name: (name.count("/"), name)).removesuffix("images.txt")


def _read_list(files: ArchiveFiles, root: str, name: str) -> dict[str, str]:
    """The lines of a list: an id and, after a blank, what it says of that."""
    if f"{root}{name}" not in files.names:
        raise ArchiveError(f"{files.path.name} lacks {name}; is it another dataset's archive?")
    try:
        text = files.read(f"{root}{name}").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{files.path.name}, {name}, is not text; download it again") from error
    values: dict[str, str] = {}
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        key, _, value = line.partition(" ")
        if not value or key in values:
            raise ArchiveError(
                f"{files.path.name}, {name}, line {number}: {line[:80]!r} is not a new id with a "
                "value; download it again"
            )
        values[key] = value
    return values


def _line(files: ArchiveFiles, name: str, image: str) -> str:
    return f"{files.path.name}, {name}, image {image[:20]}:"


def _of(files: ArchiveFiles, lists: Mapping[str, Mapping[str, str]], name: str, image: str) -> str:
    if image not in lists[name]:
        raise ArchiveError(f"{_line(files, name, image)} is missing there; download it again")
    return lists[name][image]


def _check_classes(entry: DatasetEntry, files: ArchiveFiles, listed: Mapping[str, str]) -> None:
    """The catalog's names are those of the list without its numbers."""
    names = [name.partition(".")[2] for name in listed.values()]
    ids = [str(number) for number in range(1, len(entry.classes) + 1)]
    if names != list(entry.classes) or list(listed) != ids:
        differs = next((name for name in names if name not in entry.classes), f"{len(names)} names")
        raise ArchiveError(
            f"{files.path.name}, classes.txt: the names are not those of {entry.title} "
            f"({differs[:60]!r} differs); is it another dataset's archive?"
        )


def _label(entry: DatasetEntry, files: ArchiveFiles, image: str, value: str) -> int:
    classes = len(entry.classes)
    if not value.isdecimal() or len(value) > 9 or not 1 <= int(value) <= classes:
        raise ArchiveError(
            f"{_line(files, 'image_class_labels.txt', image)} class {value[:20]!r} does not "
            f"exist; 1 to {classes} are allowed"
        )
    return int(value) - 1


def _box(files: ArchiveFiles, image: str, value: str) -> list[float]:
    """Left, top, width and height."""
    try:
        box = [float(part) for part in value.split()]
    except ValueError:
        box = []
    if len(box) != 4 or not all(0 <= side < 1e6 for side in box) or min(box[2:]) < 1:
        raise ArchiveError(
            f"{_line(files, BOXES, image)} {value[:60]!r} is not a box of left, top, width and "
            "height in pixels"
        )
    return box


def _listed(
    files: ArchiveFiles, rows: Sequence[tuple[int, str, list[float]]], crop: bool
) -> ListedImages:
    labels, names, boxes = zip(*rows, strict=True)
    return ListedImages(
        np.array(labels, dtype=np.int64),
        names,
        lambda: map(files.read, names),
        np.array(boxes) if crop else None,
    )
