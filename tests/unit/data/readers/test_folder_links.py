"""Links are followed inside a folder and into the Hub's cache, and lead nowhere else."""

import os
from pathlib import Path

import pytest

from cifarray.data.ingest import Ingest, prepare
from cifarray.data.left_out import LeftOutCounter
from cifarray.data.readers.files import FolderFiles
from cifarray.errors import ArchiveError
from cifarray.store import Store
from tests.image_archives import folder_files, hub_tables, write_folder

FOLDER, HUB = Ingest("imagefolder"), Ingest("huggingface")


def images(name: str) -> bool:
    return name.endswith((".jpg", ".png"))


def hub_cache(tmp_path: Path, repository: str = "datasets--org--pets") -> Path:
    """A snapshot as `hf download` leaves it: links into the blobs of its repository."""
    cache = tmp_path / "hub" / repository
    snapshot = cache / "snapshots" / "0123abcd"
    for number, (name, table) in enumerate(hub_tables().items()):
        write_folder(cache / "blobs", {f"{number:064x}": table})
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(f"../../../blobs/{number:064x}", snapshot / name)
    return snapshot


@pytest.mark.parametrize("below", ["", "data"])
def test_a_snapshot_in_the_hubs_cache_is_read_through_its_links(
    below: str, local_store: Store, tmp_path: Path
):
    plain = write_folder(tmp_path / "plain", hub_tables())
    expected, _ = prepare(local_store, "plain", str(plain), how=HUB)
    manifest, _ = prepare(local_store, "linked", str(hub_cache(tmp_path) / below), how=HUB)
    parts = [split.files for split in manifest.splits.values()]
    assert parts == [split.files for split in expected.splits.values()]
    assert manifest.left_out == ()


def test_the_whole_repository_of_the_hubs_cache_is_read_and_its_blobs_count_once(
    local_store: Store, tmp_path: Path
):
    repository = hub_cache(tmp_path).parent.parent
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    manifest, _ = prepare(local_store, "mine", str(repository), how=HUB)
    ((kind, example),) = [(e.kind, e.example) for e in manifest.left_out or ()]
    assert (kind, example) == ("file", "refs/main")


@pytest.mark.parametrize("kind", ["other repository", "no cache", "linked blobs", "above"])
def test_a_link_out_of_the_hubs_cache_is_refused(kind: str, local_store: Store, tmp_path: Path):
    snapshot = hub_cache(tmp_path, "pets" if kind == "no cache" else "datasets--org--pets")
    (link, *_) = sorted(snapshot.glob("data/*.parquet"))
    blobs = snapshot.parent.parent / "blobs"
    if kind == "linked blobs":
        blobs.rename(tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", blobs)
    elif kind != "no cache":
        secret = tmp_path / "hub" / ("datasets--org--other/blobs/x" if "other" in kind else "x")
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_bytes(link.read_bytes())
        link.unlink()
        os.symlink(secret, link)
    with pytest.raises(ArchiveError, match=r"which is a link that leads outside .* put the file"):
        prepare(local_store, "mine", str(snapshot), how=HUB)
    assert local_store.list("") == []


def test_links_inside_of_the_folder_are_followed(local_store: Store, tmp_path: Path):
    given = write_folder(tmp_path / "given", folder_files())
    (given / "all").mkdir()
    moved = given / "train/cat/000.jpg"
    moved.rename(given / "all/cat.jpg")
    os.symlink("../../all/cat.jpg", moved)
    (given / "test").rename(given / "held")
    os.symlink("held", given / "test")
    manifest, _ = prepare(local_store, "mine", str(given), how=FOLDER)
    plain = write_folder(tmp_path / "plain", folder_files())
    expected, _ = prepare(local_store, "plain", str(plain), how=FOLDER)
    for split in ("train", "test"):
        assert manifest.splits[split].files == expected.splits[split].files
    assert manifest.left_out == ()


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret.jpg", "nowhere", "/", ".."])
def test_a_link_that_leads_out_of_the_folder_is_refused(target: str, tmp_path: Path):
    folder = write_folder(tmp_path / "folder", {"a/one.jpg": b"1"})
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    os.symlink(tmp_path / "secret.jpg" if "secret" in target else target, folder / "link.jpg")
    if target in ("/", ".."):  # a circle, which holds nothing new
        assert FolderFiles(folder, images).names == ["a/one.jpg"]
        return
    with pytest.raises(ArchiveError, match=r"'link\.jpg', which is a link .* put the file itself"):
        FolderFiles(folder, images)


def test_a_folder_behind_a_link_must_lie_inside(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", {"a/one.jpg": b"1"})
    write_folder(tmp_path / "other", {"two.jpg": b"2"})
    os.symlink(tmp_path / "other", folder / "b")
    with pytest.raises(ArchiveError, match="'b', which is a link to a folder outside of it; it is"):
        FolderFiles(folder, images)


def test_links_in_circles_end(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", {"a/one.jpg": b"1", "b/two.jpg": b"2"})
    os.symlink(".", folder / "self")
    os.symlink("..", folder / "a" / "up")
    counter = LeftOutCounter()
    assert FolderFiles(folder, images, counter).names == ["a/one.jpg", "b/two.jpg"]
    assert [(e.reason, e.count) for e in counter.entries()] == [
        ("link to a folder that contains it", 2)
    ]
    os.symlink("../b", folder / "a" / "b")
    os.symlink("../a", folder / "b" / "a")
    with pytest.raises(ArchiveError, match="link to a folder behind another link; it is refused"):
        FolderFiles(folder, images)


@pytest.mark.parametrize("target", ["/etc/hostname", "nowhere", "/dev/null", "a/one.jpg"])
@pytest.mark.parametrize("name", ["README", "notes.txt", ".hidden.jpg", "a/Icon\r"])
def test_a_stray_link_that_no_image_needs_is_counted(name: str, target: str, tmp_path: Path):
    folder = write_folder(tmp_path / "folder", {"a/one.jpg": b"1"})
    os.symlink(target if target.startswith("/") else folder / target, folder / name)
    counter = LeftOutCounter()
    files = FolderFiles(folder, images, counter)
    assert files.names == ["a/one.jpg"]
    if (name, target) != ("notes.txt", "a/one.jpg"):  # a second name of what is read
        assert [(e.kind, e.count) for e in counter.entries()] == [("litter", 1)]


def test_what_is_read_is_what_the_link_led_to_when_it_was_checked(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", {"all/one.jpg": b"1"})
    os.symlink("all/one.jpg", folder / "link.jpg")
    files = FolderFiles(folder, images)
    (folder / "link.jpg").unlink()
    os.symlink("/etc/passwd", folder / "link.jpg")
    assert files.read("link.jpg") == b"1"


def test_a_pipe_among_the_images_is_refused_and_any_other_counted(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", {"a/one.jpg": b"1"})
    os.mkfifo(folder / "pipe")
    counter = LeftOutCounter()
    FolderFiles(folder, images, counter)
    assert [(e.kind, e.reason) for e in counter.entries()] == [("litter", "device or pipe")]
    os.mkfifo(folder / "a" / "two.jpg")
    with pytest.raises(ArchiveError, match=r"'a/two\.jpg', which is a device or a pipe; it is re"):
        FolderFiles(folder, images)
