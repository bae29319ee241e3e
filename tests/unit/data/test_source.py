"""Where ingest takes archives from: paths, addresses, the catalog's own; and what it refuses."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from cifarray.data.catalog import CIFAR100, DATASETS, DatasetEntry
from cifarray.data.ingest import prepare
from cifarray.data.manifest import load_manifest
from cifarray.errors import ArchiveError
from cifarray.store import Store
from tests.archive_server import ArchiveServer
from tests.archives import write_cifar10, write_cifar100, write_fashion_mnist


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        ("missing.tar.gz", "no archive at missing.tar.gz"),
        ("~nosuchuser/x", "no archive at ~nosuchuser/x"),
        ("text.tar.gz/x", "no archive at text.tar.gz/x"),
        ("a" * 300, "cannot be read: File name too long; give another path or address"),
        ("empty", "contains none of the files of CIFAR-100"),
        ("text.tar.gz", "truncated, or is neither a zip nor a tar"),
        ("cifar10.tar.gz", "lacks cifar-100-python/train"),
        ("pickle.tar.gz", "asks for 'os.system'"),
        ("fields.tar.gz", "has no valid 'data'; its fields are 'data'"),
    ],
)
def test_an_archive_that_is_refused_leaves_nothing_in_the_store(
    archive: str, reason: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.tar.gz").write_text("text")
    write_cifar10(Path("cifar10.tar.gz"))
    call = b"\x80\x02cos\nsystem\nU\x0etouch /tmp/x.sh\x85R."
    write_cifar100(Path("pickle.tar.gz"), 1, 1, test=call)
    write_cifar100(Path("fields.tar.gz"), 1, 1, test=b"\x80\x02}U\x04datac_codecs\nencode\ns.")
    with pytest.raises(ArchiveError, match=reason) as caught:
        prepare(store, "cifar100", archive)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert store.list("") == []


@pytest.mark.parametrize(
    ("name", "archive", "reason"),
    [
        ("digits", "x.tar.gz", "comes with scikit-learn; leave --archive out"),
        ("fashion-mnist", __file__, "give their folder or base address"),
    ],
)
def test_an_archive_of_the_wrong_kind_is_refused(
    name: str, archive: str, reason: str, local_store: Store
) -> None:
    with pytest.raises(ArchiveError, match=reason):
        prepare(local_store, name, archive)


def test_an_archive_is_fetched_from_an_address_and_resumed(
    local_store: Store, server: ArchiveServer, cifar100_archive: Path
) -> None:
    data = cifar100_archive.read_bytes()
    server.files["a/cifar.tar.gz"], server.etags["a/cifar.tar.gz"] = data, '"1"'
    server.cuts = [len(data) // 2]
    address = server.url("a/cifar.tar.gz?token=secret")
    manifest, _ = prepare(local_store, "cifar100", address)
    assert manifest.source.name == "cifar.tar.gz"
    assert manifest.source.sha256 == hashlib.sha256(data).hexdigest()
    assert "secret" not in manifest.model_dump_json()
    assert server.asked[1]["Range"] == f"bytes={len(data) // 2}-"
    assert prepare(local_store, "cifar100", address) == (manifest, False)
    assert server.asked[2]["If-None-Match"] == '"1"'


def test_several_files_are_fetched_from_the_address_they_lie_under(
    local_store: Store, server: ArchiveServer, tmp_path: Path
) -> None:
    folder = write_fashion_mnist(tmp_path / "fashion", 3, 1)
    server.files = {f"fm/{file.name}": file.read_bytes() for file in folder.iterdir()}
    manifest, _ = prepare(local_store, "fashion-mnist", server.url("fm/"))
    assert prepare(local_store, "fashion-mnist", str(folder)) == (manifest, False)


@pytest.fixture
def published(
    server: ArchiveServer, cifar100_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> DatasetEntry:
    """A catalog entry whose official address is the test's server."""
    data = cifar100_archive.read_bytes()
    server.files["c.tar.gz"] = data
    file = dataclasses.replace(
        CIFAR100.archives[0],
        name="c.tar.gz",
        url=server.url("c.tar.gz"),
        md5=hashlib.md5(data).hexdigest(),
        size_bytes=len(data),
    )
    entry = dataclasses.replace(CIFAR100, name="published", archives=(file,))
    monkeypatch.setitem(DATASETS, "published", entry)
    return entry


def test_the_official_archive_is_fetched_once_for_all(
    published: DatasetEntry, server: ArchiveServer, local_store: Store, tmp_path: Path
) -> None:
    manifest, written = prepare(local_store, "published")
    assert written and manifest.source.published
    assert prepare(local_store, "published") == (manifest, False)
    elsewhere = Store.open(str(tmp_path / "elsewhere"))
    assert prepare(elsewhere, "published") == (manifest, True)
    assert len(server.asked) == 1


def test_a_published_dataset_is_found_without_its_archive(
    published: DatasetEntry,
    server: ArchiveServer,
    local_store: Store,
    cifar100_archive: Path,
    tmp_path: Path,
) -> None:
    manifest, _ = prepare(local_store, "published", str(cifar100_archive))
    part, _ = prepare(local_store, "published", str(write_cifar100(tmp_path / "part", 1, 1)))
    assert load_manifest(local_store, "published") == part
    assert prepare(local_store, "published") == (manifest, False)
    assert load_manifest(local_store, "published") == manifest
    assert server.asked == []


def test_an_official_archive_with_a_wrong_md5_is_refused(
    published: DatasetEntry, server: ArchiveServer, local_store: Store
) -> None:
    server.files["c.tar.gz"] = server.files["c.tar.gz"][::-1]
    with pytest.raises(ArchiveError, match=f"but {published.archives[0].md5} was published"):
        prepare(local_store, "published")
    assert local_store.list("") == []
