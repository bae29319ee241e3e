"""Read image files in folders of their classes: train/CLASS/x.jpg and test/CLASS/y.png."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

import numpy as np

from cifarray.data.catalog import DatasetEntry
from cifarray.data.decode import FORMATS_IN_WORDS
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.base import (
    NOT_USED,
    TEST_SPLITS,
    ImageArchive,
    ListedImages,
    Reading,
    check_classes,
    is_image,
    refuse_losses,
)
from cifarray.data.readers.containers import Wanted, is_hidden_folder
from cifarray.data.readers.files import ArchiveFiles
from cifarray.errors import ArchiveError

NOTE_SUFFIXES = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml"),
    *(".html", ".htm", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".log", ".ini", ".cfg", ".lock"),
    *(".py", ".ipynb", ".sh", ".bat", ".db", ".md5", ".sha256", ".url", ".lnk"),
)
"""Suffixes of text files next to images: any other file in a class's folder is a lost image."""


def wanted(test_split: str) -> Wanted:
    """Whether a file is an image of a class of train or of the split that becomes test."""
    return lambda name: _split_of(name, ("train", test_split)) is not None and is_image(name)


def list_image_folder(entry: DatasetEntry, files: ArchiveFiles, how: Reading) -> ImageArchive:
    """Classes are the folders' names, sorted; images are in the order of their paths.

    Names are compared in Unicode's composed form (NFC): macOS decomposes them, other systems do
    not.

    Raises: ArchiveError.
    """
    archive, splits = files.path.name, {"train": "train", "test": how.test_split}
    roots = sorted({PurePosixPath(name).parts[:-3] for name in files.names})
    if not roots:
        raise ArchiveError(
            f"{archive} contains no image in train/CLASS/ or {how.test_split}/CLASS/; arrange "
            f"your image files ({FORMATS_IN_WORDS}) like "
            f"that{_other_split(files, '', how.test_split)}"
        )
    if len(roots) > 1:
        places = " and in ".join(repr("/".join(root) or ".") for root in roots[:2])
        raise ArchiveError(
            f"{archive} contains train and test in {places}; give one of these folders"
        )
    root = "".join(f"{part}/" for part in roots[0])
    _count_others(files, root, splits, how.left_out)
    names = {
        split: [name for name in files.names if name.startswith(f"{root}{source}/")]
        for split, source in splits.items()
    }
    for split, source in splits.items():
        if not names[split]:
            raise ArchiveError(
                f"{archive} contains no image in {source}/CLASS/; both train and test are "
                f"required, and validation is split off train{_other_split(files, root, source)}"
            )
    classes = _classes(files, root, splits, names, how.left_out)
    listed = {split: _listed(files, of_split, classes) for split, of_split in names.items()}
    labels = {splits[split]: images.labels for split, images in listed.items()}
    refuse_losses(archive, how.left_out, classes, labels)
    check_classes(archive, classes)
    return ImageArchive(tuple(classes), listed, sources=splits)


def _split_of(name: str, splits: Sequence[str]) -> str | None:
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[-3] not in splits or any(map(is_hidden_folder, parts[:-1])):
        return None
    return parts[-3]


def _class_of(name: str) -> str:
    return normalize("NFC", PurePosixPath(name).parent.name)


def _other_split(files: ArchiveFiles, root: str, missing: str) -> str:
    """The half-sentence that offers another split where the one for test is missing."""
    if missing == "train":
        return ""
    folders = {
        *files.folders,
        *(
            PurePosixPath(name).parents[1].as_posix()
            for name in files.others
            if name.count("/") >= 2
        ),
    }
    for other in TEST_SPLITS:
        if other != missing and any(f"/{folder}".endswith(f"/{root}{other}") for folder in folders):
            return f"; to test on {other}/, add --test-split {other}"
    return ""


def _count_others(
    files: ArchiveFiles, root: str, splits: dict[str, str], left_out: LeftOutCounter
) -> None:
    """Report each file that is not an image of a class, with its kind and class."""
    for name in files.others:
        inside = name.startswith(root)
        parts = PurePosixPath(name.removeprefix(root)).parts if inside else ("", name)
        split = parts[0] if len(parts) > 1 and inside else None
        class_name = normalize("NFC", parts[1]) if len(parts) > 2 else None
        suffix = PurePosixPath(name).suffix.lower()
        kind = f"not an image: {suffix}" if suffix else "not an image: no suffix"
        if split not in splits.values():
            if is_image(name):
                reason = "a folder that is not a split" if split else "image outside of any split"
                reason = NOT_USED if split in TEST_SPLITS else reason
                left_out.add("split", reason, split=split, class_name=class_name, example=name)
            else:
                left_out.add("file", kind, example=name)
        elif is_image(name):
            reason = "not directly in train/CLASS/ or test/CLASS/"
            left_out.add("image", reason, split=split, class_name=class_name, example=name)
        elif suffix in NOTE_SUFFIXES or class_name is None:
            left_out.add("file", kind, split=split, class_name=class_name, example=name)
        else:
            reason = f"unsupported format: {suffix or 'no suffix'}"
            left_out.add("image", reason, split=split, class_name=class_name, example=name)


def _classes(
    files: ArchiveFiles,
    root: str,
    splits: dict[str, str],
    names: dict[str, list[str]],
    left_out: LeftOutCounter,
) -> list[str]:
    """The classes that have images in train and in test; those of one alone are left out."""
    of_split = {split: {_class_of(name) for name in names[split]} for split in splits}
    for split, source in splits.items():
        other = of_split["test" if split == "train" else "train"]
        where = splits["test" if split == "train" else "train"]
        for folder in files.folders:
            parts = folder.removeprefix(root).split("/")
            name = normalize("NFC", parts[-1])
            at_class = folder.startswith(f"{root}{source}/") and len(parts) == 2
            if at_class and name not in of_split[split] and name not in other:
                left_out.add(
                    "class", "empty class folder", split=source, class_name=name, example=folder
                )
        for name in names[split]:
            if _class_of(name) not in other:
                left_out.add(
                    "image",
                    f"its class has no image in {where}",
                    split=source,
                    class_name=_class_of(name),
                    example=name,
                )
    kept = of_split["train"] & of_split["test"]
    for split in splits:
        names[split] = [name for name in names[split] if _class_of(name) in kept]
    return sorted(kept)


def _listed(files: ArchiveFiles, names: list[str], classes: list[str]) -> ListedImages:
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[_class_of(name)] for name in names]
    return ListedImages(np.array(labels, dtype=np.int64), names, lambda: map(files.read, names))
