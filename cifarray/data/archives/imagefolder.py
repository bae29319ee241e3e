"""Read image files in folders of their classes: train/CLASS/x.jpg and test/CLASS/y.png."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from cifarray.data.archives.files import ArchiveFiles
from cifarray.data.archives.images import ImageArchive, ListedImages, check_classes, is_image
from cifarray.data.catalog import DatasetEntry
from cifarray.errors import ArchiveError

SPLITS = ("train", "test")


def is_wanted(name: str) -> bool:
    """Whether a file is an image of a class of a split."""
    return _split_of(name) is not None and is_image(name)


def list_image_folder(entry: DatasetEntry, files: ArchiveFiles, crop: bool) -> ImageArchive:
    """Classes are the folders' names, sorted; images are in the order of their paths.

    Raises: ArchiveError.
    """
    archive = files.path.name
    roots = sorted({PurePosixPath(name).parts[:-3] for name in files.names})
    if not roots:
        raise ArchiveError(
            f"{archive} holds no image at train/CLASS/ or test/CLASS/; lay your .jpg and .png "
            "files out like that"
        )
    if len(roots) > 1:
        places = " and in ".join(repr("/".join(root) or ".") for root in roots[:2])
        raise ArchiveError(f"{archive} holds train and test in {places}; give the folder of one")
    root = "".join(f"{part}/" for part in roots[0])
    classes = {split: _classes(files, f"{root}{split}") for split in SPLITS}
    _check(archive, files, root, classes)
    splits = {split: _listed(files, f"{root}{split}", classes["train"]) for split in SPLITS}
    return ImageArchive(tuple(classes["train"]), splits, remarks=_left_out(files))


def _left_out(files: ArchiveFiles) -> tuple[str, ...]:
    """What to say of files that are nobody's notes, and were not read."""
    names = sorted(name for name in files.others if not _is_hidden(name))
    if not names:
        return ()
    count = "1 file is" if len(names) == 1 else f"{len(names)} files are"
    return (
        f"{count} left out, {names[0][-120:]!r} for one: only .jpg, .jpeg and .png files right "
        "below train/CLASS/ and test/CLASS/ are read",
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _split_of(name: str) -> str | None:
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[-3] not in SPLITS or parts[-2].startswith("."):
        return None
    return parts[-3]


def _classes(files: ArchiveFiles, below: str) -> list[str]:
    """The folders of a split, and those that an archive has only as parts of its files' paths."""
    depth = below.count("/") + 1
    named = (PurePosixPath(name).parent.as_posix() for name in files.names)
    found = {folder for folder in (*files.folders, *named) if folder.startswith(f"{below}/")}
    return sorted({folder.split("/")[depth] for folder in found if _shown(folder, depth)})


def _shown(folder: str, depth: int) -> bool:
    return not folder.split("/")[depth].startswith(".")


def _check(archive: str, files: ArchiveFiles, root: str, classes: dict[str, list[str]]) -> None:
    for split, names in classes.items():
        if not names:
            raise ArchiveError(
                f"{archive} holds no image at {split}/CLASS/; both train and test are needed, "
                "validation is cut from train"
            )
        holding = {PurePosixPath(name).parent.as_posix() for name in files.names}
        for name in names:
            if f"{root}{split}/{name}" not in holding:
                raise ArchiveError(
                    f"class {name[:80]!r} of {archive} has no .jpg or .png file in {split}; add "
                    "some, or take its folder away"
                )
    for one, other in (("train", "test"), ("test", "train")):
        if alone := sorted(set(classes[one]) - set(classes[other])):
            raise ArchiveError(
                f"{archive} holds class {alone[0][:80]!r} in {one} and not in {other}; both need "
                "the same classes"
            )
    check_classes(archive, classes["train"])


def _listed(files: ArchiveFiles, below: str, classes: list[str]) -> ListedImages:
    names = [name for name in files.names if name.startswith(f"{below}/")]
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[PurePosixPath(name).parent.name] for name in names]
    return ListedImages(np.array(labels, dtype=np.int64), names, partial(_contents, files, names))


def _contents(files: ArchiveFiles, names: Sequence[str]) -> Iterator[bytes]:
    return (files.read(name) for name in names)
