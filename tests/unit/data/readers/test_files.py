"""Folders, tars and zips give the same files, and nothing that leads out of them."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.data.readers.containers import LEAST_BUDGET_BYTES, MOST_FILE_BYTES
from cifarray.data.readers.files import open_files
from cifarray.errors import ArchiveError
from tests.image_archives import write_folder, write_tar_of, write_zip_of

FILES = {"a/one.jpg": b"1", "a/two.png": b"22", "b/c/three.jpg": b"333", "b/notes.txt": b"not one"}
Writer = Callable[..., Path]
WRITERS: dict[str, Writer] = {
    "folder": lambda path, files: write_folder(path, {f"archive/{n}": c for n, c in files.items()}),
    "tar": write_tar_of,
    "zip": write_zip_of,
}


def images(name: str) -> bool:
    return name.endswith((".jpg", ".png"))


def content_of(path: Path) -> dict[str, bytes]:
    with open_files(path, images) as files:
        return {name: files.read(name) for name in files.names}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_wanted_files_come_out_whole_and_sorted(kind: str, tmp_path: Path):
    found = content_of(WRITERS[kind](tmp_path / "given", FILES))
    assert list(found) == ["archive/a/one.jpg", "archive/a/two.png", "archive/b/c/three.jpg"]
    assert list(found.values()) == [b"1", b"22", b"333"]


def test_a_tar_without_gzip_is_read_too(tmp_path: Path):
    with tarfile.open(tmp_path / "plain.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("./empty.jpg"))
    assert content_of(tmp_path / "plain.tar") == {"empty.jpg": b""}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "..\\out.jpg"])
def test_a_path_that_leaves_the_archive_is_refused(kind: str, name: str, tmp_path: Path):
    path = WRITERS[kind](tmp_path / "given", {name: b"x"}, "")
    with pytest.raises(ArchiveError, match="a path outside the archive; it is refused"):
        content_of(path)


@pytest.mark.parametrize("target", ["/etc/passwd", "one.jpg", "."])
def test_a_link_in_a_tar_or_a_zip_is_refused_wherever_it_leads(target: str, tmp_path: Path):
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        member = tarfile.TarInfo("link.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, target
        tar.addfile(member)
    with pytest.raises(ArchiveError, match=r"'link\.jpg', which is a link"):
        content_of(tmp_path / "links.tar")
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, target)
    with pytest.raises(ArchiveError, match=r"'link\.jpg', which is a link; it is refused"):
        content_of(tmp_path / "links.zip")


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("one.jpg"))
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for _ in range(2):
            archive.writestr("one.jpg", b"")
    for name in ("twice.tar", "twice.zip"):
        with pytest.raises(ArchiveError, match=r"contains 'one\.jpg' twice"):
            content_of(tmp_path / name)


def zeros(kind: str, path: Path, size: int) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.jpg", bytes(size))
        return path
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("x.jpg")
        member.size = size
        tar.addfile(member, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_that_unpacks_to_far_more_than_itself_is_refused(kind: str, tmp_path: Path):
    path = zeros(kind, tmp_path / "bomb", LEAST_BUDGET_BYTES + 1)
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        content_of(path)


def test_a_file_larger_than_any_image_is_refused(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with (folder / "x.jpg").open("wb") as file:
        file.truncate(MOST_FILE_BYTES + 1)
    with pytest.raises(ArchiveError, match="too large for an image; it is refused"):
        content_of(folder)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_broken_archive_is_one_sentence(kind: str, tmp_path: Path):
    path = WRITERS[kind](tmp_path / "given", {f"{n}.jpg": os.urandom(5000) for n in range(9)})
    whole = path.read_bytes()
    for content in (whole[:-3000], whole[:20_000] + bytes(9000) + whole[29_000:], b"rubbish", b""):
        path.write_bytes(content)
        with pytest.raises(ArchiveError) as caught:
            content_of(path)
        assert "\n" not in str(caught.value)


def test_a_name_that_is_no_plain_text_is_refused(tmp_path: Path):
    path = write_tar_of(tmp_path / "given.tgz", {"a\nb.jpg": b""})
    with pytest.raises(ArchiveError, match=r"'archive/a\\nb\.jpg', whose name is not plain text"):
        content_of(path)


def test_blanks_of_any_kind_in_a_name_are_plain_text(tmp_path: Path):
    name = "archive/Screenshot at 3.45\u202fPM.png"  # as macOS calls them
    assert content_of(write_folder(tmp_path, {name: b"1"})) == {name: b"1"}


def test_a_zip_whose_packed_bytes_or_names_are_damaged_is_one_sentence(tmp_path: Path):
    path = tmp_path / "given.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("\u00e9.jpg", os.urandom(5000))
    whole = path.read_bytes()
    unnamed = whole.replace("\u00e9".encode(), b"\xff\xfe")
    for content in (whole[:100] + bytes(2000) + whole[2100:], unnamed):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match=r"given\.zip is "):
            content_of(path)
